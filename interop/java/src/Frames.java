import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import io.netty.buffer.ByteBufUtil;
import io.netty.buffer.Unpooled;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelInboundHandlerAdapter;
import io.netty.channel.embedded.EmbeddedChannel;
import io.netty.handler.codec.spdy.SpdyDataFrame;
import io.netty.handler.codec.spdy.SpdyFrameCodec;
import io.netty.handler.codec.spdy.SpdyFrameDecoder;
import io.netty.handler.codec.spdy.SpdyFrameDecoderDelegate;
import io.netty.handler.codec.spdy.SpdyGoAwayFrame;
import io.netty.handler.codec.spdy.SpdyHeaders;
import io.netty.handler.codec.spdy.SpdyHeadersFrame;
import io.netty.handler.codec.spdy.SpdyPingFrame;
import io.netty.handler.codec.spdy.SpdyRstStreamFrame;
import io.netty.handler.codec.spdy.SpdySettingsFrame;
import io.netty.handler.codec.spdy.SpdyStreamFrame;
import io.netty.handler.codec.spdy.SpdySynReplyFrame;
import io.netty.handler.codec.spdy.SpdySynStreamFrame;
import io.netty.handler.codec.spdy.SpdyVersion;
import io.netty.handler.codec.spdy.SpdyWindowUpdateFrame;
import io.netty.util.ReferenceCountUtil;
import java.io.BufferedInputStream;
import java.io.DataInputStream;
import java.io.EOFException;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * Checks netty's SPDY codec against ours. stdin is a list of inputs, each after its length in four bytes. A codec of
 * its own reads each input, and one line of JSON answers it, {"frames": […], "error": …}, in the words of Go's
 * `frames`.
 *
 * <p>An error is part of the answer and not a failure. There are no limits, and only the decoder judges: the names of
 * headers are as they came.
 */
final class Frames {
  private static final String USAGE = "Frames [--watchdog SECONDS] <INPUTS";
  /** No input is this long, so every DATA frame comes in one piece. */
  private static final int UNLIMITED = 1 << 26;
  private static final Gson GSON = new GsonBuilder().disableHtmlEscaping().create();

  private Frames() {}

  public static void main(String[] arguments) throws IOException {
    Peer peer = new Peer(USAGE, arguments, Map.of(), Set.of());
    DataInputStream in = new DataInputStream(new BufferedInputStream(System.in, 1 << 20));
    PrintStream out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
    while (true) {
      byte[] input;
      try {
        input = new byte[in.readInt()];
      } catch (EOFException end) {
        break;
      }
      in.readFully(input);
      out.println(GSON.toJson(read(input)));
      if (in.available() == 0) {
        out.flush();
      }
    }
    out.flush();
    peer.end(0);
  }

  private static Map<String, Object> read(byte[] input) {
    Codec codec = new Codec();
    Reader reader = new Reader(codec);
    EmbeddedChannel channel = new EmbeddedChannel(codec, reader);
    channel.writeInbound(Unpooled.wrappedBuffer(input));
    Map<String, Object> said = new LinkedHashMap<>();
    said.put("frames", List.copyOf(reader.frames));
    if (reader.error != null) {
      said.put("error", reader.error);
    }
    channel.finishAndReleaseAll();
    return said;
  }

  /** Also reports what the codec's frames and exceptions leave out. */
  private static final class Codec extends SpdyFrameCodec {
    /** In the order in which they came, with repeated ones. */
    private List<Map<String, Object>> settings = List.of();
    private String error;

    Codec() {
      super(SpdyVersion.SPDY_3_1, UNLIMITED, UNLIMITED, 6, 15, 8, false);
    }

    @Override
    protected SpdyFrameDecoder createDecoder(SpdyVersion version, SpdyFrameDecoderDelegate delegate, int maxChunkSize) {
      return new SpdyFrameDecoder(version, delegate, maxChunkSize, UNLIMITED);
    }

    @Override
    public void readSettingsFrame(boolean clear) {
      settings = new ArrayList<>();
      super.readSettingsFrame(clear);
    }

    @Override
    public void readSetting(int id, int value, boolean persistValue, boolean persisted) {
      int flags = (persistValue ? 1 : 0) | (persisted ? 2 : 0);
      settings.add(Map.of("flags", flags, "id", id, "value", Integer.toUnsignedLong(value)));
      super.readSetting(id, value, persistValue, persisted);
    }

    @Override
    public void readFrameError(String message) {
      error = message;
      super.readFrameError(message);
    }
  }

  /** Collects what the codec produces, up to the first error. */
  private static final class Reader extends ChannelInboundHandlerAdapter {
    private final Codec codec;
    private final List<Map<String, Object>> frames = new ArrayList<>();
    private String error;

    Reader(Codec codec) {
      this.codec = codec;
    }

    @Override
    public void channelRead(ChannelHandlerContext context, Object frame) {
      if (error == null) {
        frames.add(describe(frame, codec.settings));
      }
      ReferenceCountUtil.release(frame);
    }

    @Override
    public void exceptionCaught(ChannelHandlerContext context, Throwable cause) {
      if (error == null) {
        error = codec.error != null ? codec.error : cause.toString();
      }
    }
  }

  private static Map<String, Object> describe(Object frame, List<Map<String, Object>> settings) {
    Map<String, Object> line = new LinkedHashMap<>();
    int flags = 0;
    if (frame instanceof SpdyStreamFrame of) {
      line.put("id", of.streamId());
      flags = of.isLast() ? 1 : 0;
    }
    if (frame instanceof SpdyHeadersFrame of) {
      line.put("headers", headers(of.headers()));
      if (of.isInvalid() || of.isTruncated()) {
        line.put("invalid", true);
      }
    }
    // All frames with headers are SpdyHeadersFrames.
    if (frame instanceof SpdySynStreamFrame of) {
      line.put("type", "SYN_STREAM");
      line.put("associated", of.associatedStreamId());
      line.put("priority", of.priority());
      flags |= of.isUnidirectional() ? 2 : 0;
    } else if (frame instanceof SpdySynReplyFrame) {
      line.put("type", "SYN_REPLY");
    } else if (frame instanceof SpdyHeadersFrame) {
      line.put("type", "HEADERS");
    } else if (frame instanceof SpdyDataFrame of) {
      line.put("type", "DATA");
      line.put("data", ByteBufUtil.hexDump(of.content()));
    } else if (frame instanceof SpdyRstStreamFrame of) {
      line.put("type", "RST_STREAM");
      line.put("status", Integer.toUnsignedLong(of.status().code()));
    } else if (frame instanceof SpdySettingsFrame of) {
      line.put("type", "SETTINGS");
      line.put("settings", settings);
      flags = of.clearPreviouslyPersistedSettings() ? 1 : 0;
    } else if (frame instanceof SpdyPingFrame of) {
      line.put("type", "PING");
      line.put("id", Integer.toUnsignedLong(of.id()));
    } else if (frame instanceof SpdyGoAwayFrame of) {
      line.put("type", "GOAWAY");
      line.put("last", of.lastGoodStreamId());
      line.put("status", Integer.toUnsignedLong(of.status().code()));
    } else if (frame instanceof SpdyWindowUpdateFrame of) {
      line.put("type", "WINDOW_UPDATE");
      line.put("id", of.streamId());
      line.put("delta", of.deltaWindowSize());
    } else {
      throw new IllegalStateException("a frame that is new to this program: " + frame);
    }
    line.put("flags", flags);
    return line;
  }

  /** [name, value] pairs in wire order; values joined by NUL. netty has U+FFFD for what is not UTF-8. */
  private static List<List<String>> headers(SpdyHeaders headers) {
    List<List<String>> pairs = new ArrayList<>();
    for (CharSequence name : headers.names()) {
      pairs.add(List.of(name.toString(), String.join("\0", headers.getAllAsString(name))));
    }
    return pairs;
  }
}
