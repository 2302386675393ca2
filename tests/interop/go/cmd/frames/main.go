// frames reads SPDY frames from stdin with moby/spdystream's framer and prints one line of JSON for each.
// It is the oracle for "what we encode, Go reads": it fails where the framer does, and also where the framer
// reads more or less than the frame's length says, which spdystream itself does not check for every type.
package main

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"sort"
	"strings"
	"unicode/utf8"

	"github.com/moby/spdystream/spdy"

	"kubestream.test/interop/internal/peer"
)

var hexLimit = flag.Int("hex-limit", 1<<20, "print the payload of DATA frames up to this many bytes")

// counted keeps the head of the current frame and the number of bytes read, both of which the framer hides.
type counted struct {
	from *bufio.Reader
	head [8]byte
	read int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	if c.read < int64(len(c.head)) {
		copy(c.head[c.read:], p[:n])
	}
	c.read += int64(n)
	return n, err
}

func main() {
	peer.Start()
	in := &counted{from: bufio.NewReaderSize(os.Stdin, 1<<20)}
	framer, err := spdy.NewFramer(io.Discard, in)
	if err != nil {
		peer.Fail("%v", err)
	}
	var start int64
	for n := 0; ; n++ {
		in.read = 0
		frame, err := framer.ReadFrame()
		if errors.Is(err, io.EOF) && in.read == 0 {
			return
		}
		length := int64(binary.BigEndian.Uint32(in.head[4:]) & 0xff_ffff)
		if err == nil && in.read != 8+length {
			err = fmt.Errorf("the length field says %d, the framer read %d", length, in.read-8)
		}
		if err != nil {
			peer.Print(map[string]any{"error": err.Error(), "frame": n, "offset": start})
			peer.Fail("frame %d at offset %d: %v", n, start, err)
		}
		line := describe(frame)
		line["length"] = length
		line["flags"] = in.head[4]
		if in.head[0]&0x80 != 0 {
			line["version"] = binary.BigEndian.Uint16(in.head[:]) & 0x7fff
		}
		peer.Print(line)
		start += in.read
	}
}

func describe(frame spdy.Frame) map[string]any {
	switch f := frame.(type) {
	case *spdy.SynStreamFrame:
		return map[string]any{"type": "SYN_STREAM", "id": f.StreamId, "associated": f.AssociatedToStreamId,
			"priority": f.Priority, "slot": f.Slot, "headers": headers(f.Headers)}
	case *spdy.SynReplyFrame:
		return map[string]any{"type": "SYN_REPLY", "id": f.StreamId, "headers": headers(f.Headers)}
	case *spdy.HeadersFrame:
		return map[string]any{"type": "HEADERS", "id": f.StreamId, "headers": headers(f.Headers)}
	case *spdy.RstStreamFrame:
		return map[string]any{"type": "RST_STREAM", "id": f.StreamId, "status": f.Status}
	case *spdy.SettingsFrame:
		entries := []map[string]any{}
		for _, e := range f.FlagIdValues {
			entries = append(entries, map[string]any{"flags": e.Flag, "id": e.Id, "value": e.Value})
		}
		return map[string]any{"type": "SETTINGS", "settings": entries}
	case *spdy.PingFrame:
		return map[string]any{"type": "PING", "id": f.Id}
	case *spdy.GoAwayFrame:
		return map[string]any{"type": "GOAWAY", "last": f.LastGoodStreamId, "status": f.Status}
	case *spdy.WindowUpdateFrame:
		return map[string]any{"type": "WINDOW_UPDATE", "id": f.StreamId, "delta": f.DeltaWindowSize}
	case *spdy.DataFrame:
		line := map[string]any{"type": "DATA", "id": f.StreamId}
		if len(f.Data) <= *hexLimit {
			line["data"] = hex.EncodeToString(f.Data)
		}
		return line
	default:
		peer.Fail("a frame of type %T is new to this program", frame)
		return nil
	}
}

// headers gives [name, value] pairs sorted by name, names in lower case and values joined by NUL, as on the wire.
// A value that is not UTF-8 becomes {"hex": "…"}.
func headers(h http.Header) [][2]any {
	pairs := [][2]any{}
	for name, values := range h {
		joined := strings.Join(values, "\x00")
		var value any = joined
		if !utf8.ValidString(joined) {
			value = map[string]string{"hex": hex.EncodeToString([]byte(joined))}
		}
		pairs = append(pairs, [2]any{strings.ToLower(name), value})
	}
	sort.Slice(pairs, func(i, j int) bool { return pairs[i][0].(string) < pairs[j][0].(string) })
	return pairs
}
