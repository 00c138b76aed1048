package dataset

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"meap/pkg/tokenizer"
)

const (
	// inFlightBytes bounds the source text that is read and not yet written, and with it the memory that preparing takes, unless a
	// single text is larger.
	inFlightBytes = 64 << 20
	// batchBytes is the size from which a batch of texts goes to a worker.
	batchBytes = 1 << 18
)

// packer turns the files of a split into shards: one goroutine reads files and cuts what they hold into batches, several tokenise, and
// one writes the results in the files' order, so that the shards do not depend on the number of workers.
type packer struct {
	tok      tokenizer.Tokenizer
	reading  reading
	options  Options
	index    *Index
	progress Progress
	done     int64     // bytes of the files that are finished
	buffers  sync.Pool // of *[]int32
}

// batch is a part of what one file holds, on its way; done receives what becomes of it.
type batch struct {
	file  *sourceFile
	texts []byte  // one after the other
	ends  []int   // of each
	ids   []int32 // of a file that is packed already
	empty int64   // records without text
	at    int64   // bytes of the file that have been read
	last  bool    // of its file
	err   error   // that ended the file
	cost  int64   // bytes it holds in memory
	done  chan tokenised
}

// tokenised is what becomes of a batch.
type tokenised struct {
	ids       *[]int32
	bytes     int64
	documents int64
}

// pack writes the files of one split, in their groups, into dir and fills info.
func (p *packer) pack(ctx context.Context, dir, split string, groups []*group, info *SplitInfo) error {
	ctx, cancel := context.WithCancel(ctx)
	workers := p.options.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	var (
		wait  sync.WaitGroup
		queue = make(chan *batch, 4*workers) // in the files' order
		work  = make(chan *batch)
		room  = newGate(ctx, inFlightBytes)
	)
	// Cancel first: the goroutines wait for ctx wherever they may block.
	defer wait.Wait()
	defer cancel()
	wait.Go(func() {
		defer close(queue)
		defer close(work)
		p.read(groups, func(b *batch) bool {
			b.done = make(chan tokenised, 1)
			b.cost = int64(cap(b.texts) + 4*cap(b.ids))
			if room.enter(b.cost) != nil {
				return false
			}
			for _, to := range []chan *batch{queue, work} {
				select {
				case to <- b:
				case <-ctx.Done():
					return false
				}
			}
			return true
		})
	})
	for range workers {
		wait.Go(func() {
			for b := range work {
				b.done <- p.tokenise(b)
			}
		})
	}

	w := newShardWriter(dir, split, p.tok.VocabSize(), p.tok.EOS(), chunkTokens)
	files := 0
	for _, g := range groups {
		files += len(g.files)
		c, err := p.packGroup(ctx, g, queue, room, w)
		if err != nil {
			return err
		}
		info.Bytes += c.Bytes
		info.Documents += c.Documents
		info.Files += c.Files
		info.Skipped.Add(c.Skipped)
	}
	if err := w.close(); err != nil {
		return fmt.Errorf("writing the %s split: %w; make room there or set data.cache_dir to another disk", split, err)
	}
	info.Shards, info.Tokens = w.files, w.tokens
	if info.Tokens == 0 || info.Bytes == 0 {
		return emptySplit(split, files, info.Skipped)
	}
	info.Documents = max(1, info.Documents) // tokens that were packed without BOS or EOS
	return nil
}

// packGroup appends a group's tokens to w: those of its piece, where it is there, else those of its files, which become the piece.
func (p *packer) packGroup(ctx context.Context, g *group, queue <-chan *batch, room *gate, w *shardWriter) (counts, error) {
	if g.whole {
		return p.reuse(ctx, g, w)
	}
	out, err := newPieceWriter(g.path, w.dtype)
	if err != nil {
		return counts{}, fmt.Errorf("writing a piece: %w; make room there or set data.cache_dir to another disk", err)
	}
	kept := false
	defer func() {
		if !kept {
			out.abandon()
		}
	}()
	for range g.files {
		tokens := 0
		for last := false; !last; {
			var b *batch
			var t tokenised
			select {
			case b = <-queue:
			case <-ctx.Done():
			}
			if b == nil { // the reader has stopped, or is about to
				return counts{}, ctx.Err()
			}
			select {
			case t = <-b.done:
			case <-ctx.Done():
				return counts{}, ctx.Err()
			}
			last = b.last
			switch {
			case errors.Is(b.err, errBinary) && !b.file.Named:
				out.Skipped.Binary++
			case errors.Is(b.err, errTooLarge) && !b.file.Named:
				out.Skipped.TooLarge++
			case b.err != nil:
				return counts{}, b.err
			}
			if err := errors.Join(out.add(*t.ids), w.add(*t.ids)); err != nil {
				return counts{}, fmt.Errorf("writing tokens: %w; make room there or set data.cache_dir to another disk", err)
			}
			out.Bytes += t.bytes
			out.Documents += t.documents
			out.Skipped.Records += b.empty
			tokens += len(*t.ids)
			p.progress.Tokens += int64(len(*t.ids))
			p.buffers.Put(t.ids)
			room.leave(b.cost)
			p.report(b.file.Size, b.at, last)
		}
		if tokens > 0 {
			out.Files++
		}
	}
	kept = true
	if err := out.commit(); err != nil {
		return counts{}, fmt.Errorf("writing a piece: %w; make room there or set data.cache_dir to another disk", err)
	}
	return out.counts, nil
}

// reuse appends the tokens of a piece that is there.
func (p *packer) reuse(ctx context.Context, g *group, w *shardWriter) (counts, error) {
	old, err := openPiece(g.path)
	if err != nil {
		return counts{}, err
	}
	defer old.Close()
	ids := make([]int32, 1<<16)
	for at := int64(0); at < old.Tokens && ctx.Err() == nil; at += int64(len(ids)) {
		ids = ids[:min(int64(len(ids)), old.Tokens-at)]
		decodeTokens(w.dtype, old.data, at, ids)
		if err := w.add(ids); err != nil {
			return counts{}, fmt.Errorf("writing tokens: %w; make room there or set data.cache_dir to another disk", err)
		}
	}
	p.progress.Tokens += old.Tokens
	p.progress.Reused += len(g.files)
	for _, f := range g.files {
		p.report(f.Size, f.Size, true)
	}
	return old.counts, ctx.Err()
}

// report tells that a file has been read up to a place, or to its end.
func (p *packer) report(size, at int64, last bool) {
	p.progress.Bytes = p.done + min(at, size)
	if last {
		p.done += size
		p.progress.Bytes = p.done
		p.progress.Files++
	}
	if p.options.Progress != nil {
		p.options.Progress(p.progress)
	}
}

// read hands on what the files of those groups hold whose piece is not there. It ends at the first file that cannot be read.
func (p *packer) read(groups []*group, emit func(*batch) bool) {
	for _, g := range groups {
		if g.whole {
			continue
		}
		for i := range g.files {
			if !p.readFile(&g.files[i], emit) {
				return
			}
		}
	}
}

// readFile hands on what a file holds, and reports whether to go on.
func (p *packer) readFile(f *sourceFile, emit func(*batch) bool) bool {
	b := &batch{file: f}
	for r, err := range p.reading.records(*f) {
		if err != nil {
			b.err = err
			break
		}
		b.at = r.at
		switch {
		case r.ids != nil:
			b.ids = append(b.ids, r.ids...)
		case len(r.text) == 0:
			b.empty++
		case r.own && len(b.texts) == 0:
			b.texts, b.ends = r.text, append(b.ends, len(r.text))
		default:
			b.texts = append(b.texts, r.text...)
			b.ends = append(b.ends, len(b.texts))
		}
		if len(b.texts)+4*len(b.ids) >= batchBytes {
			if !emit(b) {
				return false
			}
			b = &batch{file: f}
		}
	}
	b.last = true
	skippable := errors.Is(b.err, errBinary) || errors.Is(b.err, errTooLarge)
	return emit(b) && (b.err == nil || skippable && !f.Named)
}

// tokenise packs a batch's documents as <s> text </s>.
func (p *packer) tokenise(b *batch) tokenised {
	ids, _ := p.buffers.Get().(*[]int32)
	if ids == nil {
		ids = new([]int32)
	}
	*ids = (*ids)[:0]
	t := tokenised{ids: ids}
	if b.ids != nil {
		*ids = append(*ids, b.ids...)
		t.bytes, t.documents = p.measure(b.ids)
		return t
	}
	start := 0
	for _, end := range b.ends {
		if p.index.BOS >= 0 {
			*ids = append(*ids, p.index.BOS)
		}
		*ids = append(p.tok.Encode(b.texts[start:end:end], *ids), p.index.EOS)
		start = end
	}
	t.bytes, t.documents = int64(start), int64(len(b.ends))
	return t
}

// measure returns the bytes of text and the documents of tokens that were packed before. A document counts where its BOS stands,
// which is what SplitInfo.Labels leaves out, or its EOS where nothing begins one.
func (p *packer) measure(ids []int32) (bytes, documents int64) {
	mark := p.index.BOS
	if mark < 0 {
		mark = p.index.EOS
	}
	special := p.tok.Special()
	start := 0
	for i, id := range ids {
		if id == mark {
			documents++
		}
		if slices.Contains(special, id) {
			bytes += int64(len(p.tok.Decode(ids[start:i])))
			start = i + 1
		}
	}
	return bytes + int64(len(p.tok.Decode(ids[start:]))), documents
}

// gate lets text in as long as there is room; a text larger than all the room
// passes alone.
type gate struct {
	ctx   context.Context
	mu    sync.Mutex
	cond  *sync.Cond
	room  int64
	inUse int64
}

func newGate(ctx context.Context, room int64) *gate {
	g := &gate{ctx: ctx, room: room}
	g.cond = sync.NewCond(&g.mu)
	context.AfterFunc(ctx, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.cond.Broadcast()
	})
	return g
}

// enter waits for n bytes of room or for the context's end.
func (g *gate) enter(n int64) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.inUse > 0 && g.inUse+n > g.room && g.ctx.Err() == nil {
		g.cond.Wait()
	}
	g.inUse += n
	return g.ctx.Err()
}

// leave gives back n bytes of room.
func (g *gate) leave(n int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inUse -= n
	g.cond.Broadcast()
}
