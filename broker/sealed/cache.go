// SPDX-License-Identifier: Apache-2.0

package sealed

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"io/fs"
	"os"
	"sync"
	"time"
)

// settled is how old a file must be for its entries to be kept: one that was
// replaced a moment ago may be replaced again within what the file system's
// clock tells apart.
const settled = time.Second

// sameFile reports whether the file is still what it was. It is replaced by
// rename, never changed in place.
func sameFile(was, is fs.FileInfo) bool {
	return was != nil && os.SameFile(was, is) && was.ModTime().Equal(is.ModTime()) && was.Size() == is.Size() && was.Mode() == is.Mode()
}

// cache keeps the entries of one version of the file, so that a login does not
// cost the decryption of every credential there is. Their secrets are
// encrypted with a key of this process; each is decrypted for whom it is
// returned to.
type cache struct {
	aead cipher.AEAD

	mu      sync.Mutex
	of      fs.FileInfo
	entries map[string]entry // Secret is nonce and cipher text
}

func newCache() *cache {
	key := make([]byte, 32)
	rand.Read(key) // never fails (crypto/rand)
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // the key has a length of AES's
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err) // the block is AES's
	}
	return &cache{aead: aead}
}

// get returns a copy of an entry, nil if there is none, and whether the cache
// holds that version of the file.
func (c *cache) get(of fs.FileInfo, key string) (e *entry, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !sameFile(c.of, of) {
		return nil, false
	}
	kept, ok := c.entries[key]
	if !ok {
		return nil, true
	}
	secret, err := c.aead.Open(nil, nil, kept.Secret, []byte(key))
	if err != nil {
		return nil, false // memory that was changed: read the file
	}
	kept.Secret = secret
	return &kept, true
}

// put keeps all entries of a version, encrypted; all stays the caller's.
func (c *cache) put(of fs.FileInfo, all contents) {
	if time.Since(of.ModTime()) < settled {
		return
	}
	kept := make(map[string]entry, len(all))
	for key, e := range all {
		hidden := *e
		hidden.Secret = c.aead.Seal(nil, nil, e.Secret, []byte(key))
		kept[key] = hidden
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.of, c.entries = of, kept
}
