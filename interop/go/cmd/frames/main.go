// frames reads SPDY frames from stdin with moby/spdystream's framer, and prints one line of JSON for each. It checks
// that Go reads what this library encodes. It fails if the framer fails, and also if the framer reads more or less than
// the frame's length says, which spdystream does not check for every type.
//
// With -inputs it checks that Go decodes as this library does. stdin is a list of inputs, each after its length in four
// bytes. A framer of its own reads each input, and one line answers it: {"frames": […], "error": …, "offset": …, "cut":
// …}. An error is part of the answer and not a failure. The offset is that of the bad frame; cut is true if the framer
// wanted more bytes than the input has.
package main

import (
	"bufio"
	"bytes"
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

var (
	hexLimit = flag.Int("hex-limit", 1<<20, "print the payload of DATA frames up to this many bytes")
	inputs   = flag.Bool("inputs", false, "stdin is a list of inputs, each after its length in four bytes; print a line for each")
)

// counted keeps what the framer hides: the head of the current frame, the number of bytes read, and whether the input
// has ended.
type counted struct {
	from  io.Reader
	head  [8]byte
	read  int64
	start int64
	ended bool
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	if c.read < int64(len(c.head)) {
		copy(c.head[c.read:], p[:n])
	}
	c.read += int64(n)
	c.ended = c.ended || errors.Is(err, io.EOF)
	return n, err
}

func main() {
	peer.Start()
	if *inputs {
		answer(bufio.NewReaderSize(os.Stdin, 1<<20))
		return
	}
	in, framer := open(bufio.NewReaderSize(os.Stdin, 1<<20))
	for n := 0; ; n++ {
		line, err := next(in, framer)
		if err != nil {
			peer.Print(map[string]any{"error": err.Error(), "frame": n, "offset": in.start})
			peer.Fail("frame %d at offset %d: %v", n, in.start, err)
		}
		if line == nil {
			return
		}
		peer.Print(line)
	}
}

func answer(stdin io.Reader) {
	for {
		var length uint32
		if err := binary.Read(stdin, binary.BigEndian, &length); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			peer.Fail("the length of an input: %v", err)
		}
		input := make([]byte, length)
		if _, err := io.ReadFull(stdin, input); err != nil {
			peer.Fail("an input of %d bytes: %v", length, err)
		}
		in, framer := open(bytes.NewReader(input))
		said := map[string]any{}
		frames := []map[string]any{}
		for {
			line, err := next(in, framer)
			if err != nil {
				said["error"], said["offset"], said["cut"] = err.Error(), in.start, in.ended
			}
			if line == nil {
				break
			}
			frames = append(frames, line)
		}
		said["frames"] = frames
		peer.Print(said)
	}
}

func open(from io.Reader) (*counted, *spdy.Framer) {
	in := &counted{from: from}
	framer, err := spdy.NewFramer(io.Discard, in)
	if err != nil {
		peer.Fail("%v", err)
	}
	return in, framer
}

// next describes the next frame, or returns nil at the end if no frame has begun.
func next(in *counted, framer *spdy.Framer) (map[string]any, error) {
	in.start += in.read
	in.read = 0
	frame, err := framer.ReadFrame()
	if errors.Is(err, io.EOF) && in.read == 0 {
		return nil, nil
	}
	length := int64(binary.BigEndian.Uint32(in.head[4:]) & 0xff_ffff)
	if err == nil && in.read != 8+length {
		err = fmt.Errorf("the length field says %d, the framer read %d", length, in.read-8)
	}
	if err != nil {
		return nil, err
	}
	line := describe(frame)
	line["length"] = length
	line["flags"] = in.head[4]
	if in.head[0]&0x80 != 0 {
		line["version"] = binary.BigEndian.Uint16(in.head[:]) & 0x7fff
	}
	return line, nil
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

// headers returns [name, value] pairs sorted by name, with names in lower case and values joined by NUL, as on the
// wire. A value that is not UTF-8 becomes {"hex": "…"}; the framer accepts no such name.
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
