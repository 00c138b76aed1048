package tokenizer

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// The ids of the byte-level vocabulary: 0 to 255 are the bytes themselves.
const (
	byteBOS       = 256
	byteEOS       = 257
	byteMask      = 258
	byteVocabSize = 259
)

// ByteLevel is the vocabulary of the 256 bytes, <s>, </s> and [MASK]. Every
// byte of a text is one token, so that any text, in any encoding, survives
// Decode(Encode(text)), and no text can spell a special token: "</s>" in a
// text is four bytes.
type ByteLevel struct{}

// Encode appends one id per byte of text to dst.
func (ByteLevel) Encode(text []byte, dst []int32) []int32 {
	n := len(dst)
	dst = slices.Grow(dst, len(text))[:n+len(text)]
	for i, b := range text {
		dst[n+i] = int32(b)
	}
	return dst
}

// Decode returns the bytes of ids, and special tokens as their strings.
func (ByteLevel) Decode(ids []int32) []byte {
	text := make([]byte, 0, len(ids))
	for _, id := range ids {
		switch {
		case id >= 0 && id < byteBOS:
			text = append(text, byte(id))
		case id == byteBOS:
			text = append(text, BOSToken...)
		case id == byteEOS:
			text = append(text, EOSToken...)
		case id == byteMask:
			text = append(text, MaskToken...)
		default:
			text = append(text, "\uFFFD"...)
		}
	}
	return text
}

// VocabSize returns 259.
func (ByteLevel) VocabSize() int { return byteVocabSize }

// BOS returns 256, the id of <s>.
func (ByteLevel) BOS() int32 { return byteBOS }

// EOS returns 257, the id of </s>.
func (ByteLevel) EOS() int32 { return byteEOS }

// Mask returns 258, the id of [MASK].
func (ByteLevel) Mask() int32 { return byteMask }

// Special returns the ids of <s>, </s> and [MASK].
func (ByteLevel) Special() []int32 { return []int32{byteBOS, byteEOS, byteMask} }

// Fingerprint hashes the pieces of the vocabulary in the order of their ids,
// each after its length.
func (ByteLevel) Fingerprint() string { return byteFingerprint() }

var byteFingerprint = sync.OnceValue(func() string {
	h := sha256.New()
	piece := func(s string) {
		binary.Write(h, binary.LittleEndian, uint64(len(s)))
		h.Write([]byte(s))
	}
	piece("byte-level, without merges")
	for b := range 256 {
		piece(string([]byte{byte(b)}))
	}
	for _, s := range []string{BOSToken, EOSToken, MaskToken} {
		piece(s)
	}
	return hex.EncodeToString(h.Sum(nil))
})

// Save writes tokenizer.json, a Hugging Face byte-level BPE without merges that
// gives the same ids, and tokenizer_config.json. Each is written under a
// temporary name and renamed, so what was there is lost only to its successor.
func (ByteLevel) Save(dir string) error {
	for _, f := range []struct {
		name    string
		content any
	}{{File, byteDefinition()}, {ConfigFile, specialConfig()}} {
		data, err := json.MarshalIndent(f.content, "", "  ")
		if err != nil {
			return fmt.Errorf("encoding %s: %w", f.name, err)
		}
		if err := replaceFile(filepath.Join(dir, f.name), append(data, '\n')); err != nil {
			return fmt.Errorf("saving the tokenizer: %w", err)
		}
	}
	return nil
}

// replaceFile writes data to path so that path holds either what it held or
// all of data, whatever happens.
func replaceFile(path string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".tmp-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(data); err != nil {
		return err
	}
	if err = f.Chmod(0o644); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
