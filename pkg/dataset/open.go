package dataset

import (
	"bufio"
	"errors"
	"io"
	"os"
)

// OpenUnpacked opens a file for reading. One that is named .gz or .zst is unpacked.
func OpenUnpacked(path string) (io.ReadCloser, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	_, how := splitName(path)
	r, done, err := unpack(bufio.NewReader(f), how)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return unpackedFile{r, func() error {
		done()
		return f.Close()
	}}, nil
}

// unpackedFile is a file that is read through an unpacker.
type unpackedFile struct {
	unpacked io.Reader
	close    func() error
}

// Close closes the file.
func (u unpackedFile) Close() error { return u.close() }

// Read implements io.Reader; what is wrong with a packed file is said with its remedy.
func (u unpackedFile) Read(b []byte) (int, error) {
	n, err := u.unpacked.Read(b)
	if err != nil && err != io.EOF {
		err = explainUnpacking(err)
	}
	return n, err
}
