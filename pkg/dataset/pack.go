package dataset

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"meap/pkg/tokenizer"
)

// inFlightBytes bounds the source text that is read and not yet written, and
// with it the memory that preparing takes, unless a single file is larger.
const inFlightBytes = 64 << 20

// packer tokenises the files of a split on several workers and writes the
// results in the files' order, so that the shards do not depend on the number
// of workers.
type packer struct {
	tok      tokenizer.Tokenizer
	config   Config
	options  Options
	index    *Index
	progress Progress
	buffers  sync.Pool // of *[]int32
}

// tokenised is what becomes of one file.
type tokenised struct {
	ids       *[]int32
	bytes     int64
	documents int64
	err       error
}

// job is a file on its way; done receives its result.
type job struct {
	file sourceFile
	done chan tokenised
}

// pack writes one split into dir and fills info.
func (p *packer) pack(ctx context.Context, dir, split string, files []sourceFile, info *SplitInfo) error {
	ctx, cancel := context.WithCancel(ctx)
	workers := p.options.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	var (
		wait  sync.WaitGroup
		queue = make(chan *job, 4*workers) // in the files' order
		work  = make(chan *job)
		room  = newGate(ctx, inFlightBytes)
	)
	// Cancel first: the goroutines wait for ctx wherever they may block.
	defer wait.Wait()
	defer cancel()
	wait.Go(func() {
		defer close(queue)
		defer close(work)
		for _, f := range files {
			if room.enter(f.Size) != nil {
				return
			}
			j := &job{file: f, done: make(chan tokenised, 1)}
			for _, to := range []chan *job{queue, work} {
				select {
				case to <- j:
				case <-ctx.Done():
					return
				}
			}
		}
	})
	for range workers {
		wait.Go(func() {
			for j := range work {
				j.done <- p.tokenise(j.file)
			}
		})
	}

	w := newShardWriter(dir, split, p.tok.VocabSize(), p.tok.EOS(), chunkTokens)
	for j := range queue {
		var t tokenised
		select {
		case t = <-j.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		switch {
		case errors.Is(t.err, errBinary) && !j.file.Named:
			info.Skipped.Binary++
		case t.err != nil:
			return fmt.Errorf("%w; remove the file from the sources, or repair it", t.err)
		default:
			if err := w.add(*t.ids); err != nil {
				return fmt.Errorf("writing the %s split: %w; make room there or set data.cache_dir to another disk", split, err)
			}
			info.Bytes += t.bytes
			info.Documents += t.documents
			if t.documents > 0 {
				info.Files++
			}
		}
		p.progress.Files++
		p.progress.Bytes += j.file.Size
		p.progress.Tokens += int64(len(*t.ids))
		p.buffers.Put(t.ids)
		room.leave(j.file.Size)
		if p.options.Progress != nil {
			p.options.Progress(p.progress)
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := w.close(); err != nil {
		return fmt.Errorf("writing the %s split: %w; make room there or set data.cache_dir to another disk", split, err)
	}
	info.Shards, info.Tokens = w.files, w.tokens
	if info.Tokens == 0 {
		return emptySplit(split, len(files), info.Skipped)
	}
	return nil
}

// tokenise reads one file and packs its documents as <s> text </s>.
func (p *packer) tokenise(f sourceFile) tokenised {
	ids, _ := p.buffers.Get().(*[]int32)
	if ids == nil {
		ids = new([]int32)
	}
	*ids = (*ids)[:0]
	t := tokenised{ids: ids}
	for d, err := range documents(f, p.config.ValidationFraction) {
		if err != nil {
			*ids = (*ids)[:0]
			t.err = err
			return t
		}
		if p.index.BOS >= 0 {
			*ids = append(*ids, p.index.BOS)
		}
		*ids = append(p.tok.Encode(d.Text, *ids), p.index.EOS)
		t.bytes += int64(len(d.Text))
		t.documents++
	}
	return t
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
