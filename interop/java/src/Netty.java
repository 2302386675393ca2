import io.netty.bootstrap.Bootstrap;
import io.netty.bootstrap.ServerBootstrap;
import io.netty.buffer.ByteBuf;
import io.netty.buffer.Unpooled;
import io.netty.channel.Channel;
import io.netty.channel.ChannelDuplexHandler;
import io.netty.channel.ChannelFuture;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelInitializer;
import io.netty.channel.ChannelPromise;
import io.netty.channel.EventLoopGroup;
import io.netty.channel.MultiThreadIoEventLoopGroup;
import io.netty.channel.SimpleChannelInboundHandler;
import io.netty.channel.nio.NioIoHandler;
import io.netty.channel.socket.nio.NioServerSocketChannel;
import io.netty.channel.socket.nio.NioSocketChannel;
import io.netty.handler.codec.spdy.DefaultSpdyDataFrame;
import io.netty.handler.codec.spdy.DefaultSpdyPingFrame;
import io.netty.handler.codec.spdy.DefaultSpdyRstStreamFrame;
import io.netty.handler.codec.spdy.DefaultSpdySettingsFrame;
import io.netty.handler.codec.spdy.DefaultSpdySynReplyFrame;
import io.netty.handler.codec.spdy.DefaultSpdySynStreamFrame;
import io.netty.handler.codec.spdy.SpdyDataFrame;
import io.netty.handler.codec.spdy.SpdyFrame;
import io.netty.handler.codec.spdy.SpdyFrameCodec;
import io.netty.handler.codec.spdy.SpdyGoAwayFrame;
import io.netty.handler.codec.spdy.SpdyHeaders;
import io.netty.handler.codec.spdy.SpdyHeadersFrame;
import io.netty.handler.codec.spdy.SpdyPingFrame;
import io.netty.handler.codec.spdy.SpdyRstStreamFrame;
import io.netty.handler.codec.spdy.SpdySessionHandler;
import io.netty.handler.codec.spdy.SpdySettingsFrame;
import io.netty.handler.codec.spdy.SpdyStreamFrame;
import io.netty.handler.codec.spdy.SpdyStreamStatus;
import io.netty.handler.codec.spdy.SpdySynReplyFrame;
import io.netty.handler.codec.spdy.SpdySynStreamFrame;
import io.netty.handler.codec.spdy.SpdyVersion;
import io.netty.handler.codec.spdy.SpdyWindowUpdateFrame;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Semaphore;
import java.util.function.Consumer;
import java.util.function.Supplier;

/**
 * netty's SPDY/3.1 over raw TCP: SpdyFrameCodec and SpdySessionHandler unchanged, with windows of 64 KiB for each
 * stream and for the session, and at most 100 open streams of the other side.
 *
 * <p>{@code listen} serves the scenarios of the suite's README; {@code dial ADDR BYTES SCENARIO...} runs them, each on
 * a connection of its own. --window N announces INITIAL_WINDOW_SIZE; by itself netty has windows but does not announce
 * them. Further options: --watchdog SECONDS, --stdin-guard. Each connection prints a line of JSON: the frames that came
 * and went, counted by type.
 */
public final class Netty {
  private static final String USAGE = "Netty [--window N] [--stdin-guard] listen | dial ADDR BYTES SCENARIO...";
  private static final int CHUNK = 32 * 1024;
  private static final int PINGS = 10;
  private static final int THOUSAND = 1000;
  private static final int AT_ONCE = 100;

  private final Integer window;
  private final EventLoopGroup loop = new MultiThreadIoEventLoopGroup(1, NioIoHandler.newFactory());

  private Netty(Integer window) {
    this.window = window;
  }

  public static void main(String[] arguments) {
    try {
      start(arguments);
    } catch (Exception error) {
      error.printStackTrace();
      // Returning would leave netty's threads running.
      Peer.fail("no connection", 1);
    }
  }

  private static void start(String[] arguments) throws InterruptedException {
    Map<String, String> defaults = new TreeMap<>();
    defaults.put("window", null);
    Peer peer = new Peer(USAGE, arguments, defaults, Set.of("stdin-guard"));
    if (peer.has("stdin-guard")) {
      peer.guard();
    }
    Netty netty = new Netty(peer.get("window") == null ? null : Integer.valueOf(peer.get("window")));
    List<String> rest = peer.rest;
    if (rest.equals(List.of("listen"))) {
      netty.listen();
    } else if (rest.size() > 3 && rest.get(0).equals("dial")) {
      netty.dial(peer, rest.get(1), Integer.parseInt(rest.get(2)), rest.subList(3, rest.size()));
    } else {
      Peer.fail(USAGE, 2);
    }
  }

  private void listen() throws InterruptedException {
    Channel listener = new ServerBootstrap().group(loop).channel(NioServerSocketChannel.class)
        .childHandler(pipeline(true, Acceptor::new)).bind("127.0.0.1", 0).sync().channel();
    Peer.print(Map.of("listening", "127.0.0.1:" + ((InetSocketAddress) listener.localAddress()).getPort()));
    listener.closeFuture().sync();
  }

  private void dial(Peer peer, String address, int bytes, List<String> scenarios) throws InterruptedException {
    int colon = address.lastIndexOf(':');
    InetSocketAddress to =
        new InetSocketAddress(address.substring(0, colon), Integer.parseInt(address.substring(colon + 1)));
    boolean failed = false;
    for (String scenario : scenarios) {
      Opener opener = new Opener();
      opener.channel = new Bootstrap().group(loop).channel(NioSocketChannel.class)
          .handler(pipeline(false, () -> opener)).connect(to).sync().channel();
      String error = null;
      try {
        opener.run(scenario, bytes);
        // Sends GOAWAY; the connection ends when no stream is left.
        opener.channel.close().sync();
      } catch (ExecutionException | IOException cause) {
        error = cause.toString();
        failed = true;
        System.err.println(scenario + ": " + error);
        opener.channel.unsafe().closeForcibly();
      }
      Map<String, Object> line = new LinkedHashMap<>();
      line.put("scenario", scenario);
      line.put("ok", error == null);
      line.put("error", error);
      opener.account.into(line);
      Peer.print(line);
    }
    peer.end(failed ? 1 : 0);
  }

  private ChannelInitializer<Channel> pipeline(boolean server, Supplier<Session> make) {
    return new ChannelInitializer<>() {
      @Override
      protected void initChannel(Channel channel) {
        Session session = make.get();
        session.window = window;
        channel.pipeline().addLast(
            new SpdyFrameCodec(SpdyVersion.SPDY_3_1), session.account,
            new SpdySessionHandler(SpdyVersion.SPDY_3_1, server), session);
      }
    };
  }

  /** Counts the frames between netty's codec and netty's session. */
  private static final class Account extends ChannelDuplexHandler {
    private final Map<String, Integer> received = new TreeMap<>();
    private final Map<String, Integer> sent = new TreeMap<>();
    /** The first error that netty has reported. */
    private String error = "";

    @Override
    public void channelRead(ChannelHandlerContext context, Object frame) {
      count(received, frame);
      context.fireChannelRead(frame);
    }

    @Override
    public void write(ChannelHandlerContext context, Object frame, ChannelPromise promise) {
      count(sent, frame);
      context.write(frame, promise);
    }

    @Override
    public void exceptionCaught(ChannelHandlerContext context, Throwable cause) {
      failed(cause);
      context.fireExceptionCaught(cause);
    }

    synchronized void failed(Throwable cause) {
      if (error.isEmpty()) {
        error = cause.toString();
      }
    }

    private synchronized void count(Map<String, Integer> frames, Object frame) {
      String name;
      if (frame instanceof SpdyRstStreamFrame reset) {
        name = "RST_STREAM " + reset.status();
      } else if (frame instanceof SpdyGoAwayFrame away) {
        name = "GOAWAY " + away.status();
      } else if (frame instanceof SpdyWindowUpdateFrame update) {
        name = update.streamId() == 0 ? "SESSION_WINDOW_UPDATE" : "WINDOW_UPDATE";
      } else if (frame instanceof SpdyHeadersFrame headers && (headers.isInvalid() || headers.isTruncated())) {
        name = "BAD_HEADERS";
      } else {
        name = frame.getClass().getSimpleName().replace("DefaultSpdy", "").replace("Frame", "");
      }
      frames.merge(name, 1, Integer::sum);
    }

    synchronized void into(Map<String, Object> line) {
      line.put("received", Map.copyOf(received));
      line.put("sent", Map.copyOf(sent));
      line.put("wrong", error);
    }
  }

  /** The last handler of a pipeline. */
  private abstract static class Session extends SimpleChannelInboundHandler<SpdyFrame> {
    final Account account = new Account();
    Integer window;
    Channel channel;

    @Override
    public void channelActive(ChannelHandlerContext context) {
      channel = context.channel();
      if (window != null) {
        SpdySettingsFrame settings = new DefaultSpdySettingsFrame();
        write(settings.setValue(SpdySettingsFrame.SETTINGS_INITIAL_WINDOW_SIZE, window));
      }
      context.fireChannelActive();
    }

    @Override
    public void exceptionCaught(ChannelHandlerContext context, Throwable cause) {
      account.failed(cause);
    }

    /** Writes from the end of the pipeline, so that netty's session sees it. */
    ChannelFuture write(SpdyFrame frame) {
      return channel.writeAndFlush(frame);
    }

    void data(int stream, ByteBuf content, boolean last) {
      SpdyDataFrame frame = new DefaultSpdyDataFrame(stream, content);
      write(frame.setLast(last));
    }

    /** Writes in pieces, as all peers do. netty's session holds back what the windows do not allow. */
    void all(int stream, byte[] content) {
      for (int at = 0; at < content.length; at += CHUNK) {
        data(stream, Unpooled.wrappedBuffer(content, at, Math.min(CHUNK, content.length - at)), false);
      }
      data(stream, Unpooled.EMPTY_BUFFER, true);
    }
  }

  /** The accepting side of the scenarios. */
  private static final class Acceptor extends Session {
    private static final class Stream {
      String scenario;
      final ByteArrayOutputStream all = new ByteArrayOutputStream();
    }

    private final Map<Integer, Stream> streams = new HashMap<>();
    private int pinged;
    private int pinging;

    @Override
    protected void channelRead0(ChannelHandlerContext context, SpdyFrame frame) throws IOException {
      if (frame instanceof SpdySynStreamFrame syn) {
        accept(syn);
      } else if (frame instanceof SpdyDataFrame data && streams.containsKey(data.streamId())) {
        take(data.streamId(), streams.get(data.streamId()), data.content(), data.isLast());
      } else if (frame instanceof SpdyRstStreamFrame reset) {
        streams.remove(reset.streamId());
      } else if (frame instanceof SpdyPingFrame) {
        ping();
      }
    }

    private void accept(SpdySynStreamFrame syn) throws IOException {
      int id = syn.streamId();
      Stream stream = new Stream();
      stream.scenario = String.valueOf(syn.headers().get("scenario"));
      if (stream.scenario.equals("refuse")) {
        write(new DefaultSpdyRstStreamFrame(id, SpdyStreamStatus.REFUSED_STREAM));
        return;
      }
      SpdySynReplyFrame reply = new DefaultSpdySynReplyFrame(id);
      reply.headers().set("x-peer", "netty");
      if (stream.scenario.equals("headers")) {
        reply.headers().set(syn.headers());
      }
      write(reply);
      switch (stream.scenario) {
        case "source" -> all(id, Peer.pattern(syn.headers().getInt("bytes")));
        case "goaway" -> {
          all(id, Peer.pattern(syn.headers().getInt("bytes")));
          channel.close();
        }
        case "ping" -> {
          pinging = id;
          ping();
        }
        default -> {}
      }
      streams.put(id, stream);
      take(id, stream, Unpooled.EMPTY_BUFFER, syn.isLast());
    }

    private void take(int id, Stream stream, ByteBuf content, boolean last) throws IOException {
      switch (stream.scenario) {
        case "echo" -> data(id, content.retain(), last);
        case "reset" -> {
          if (content.isReadable()) {
            write(new DefaultSpdyRstStreamFrame(id, SpdyStreamStatus.CANCEL));
          }
        }
        default -> content.readBytes(stream.all, content.readableBytes());
      }
      if (!last) {
        return;
      }
      streams.remove(id);
      byte[] all = stream.all.toByteArray();
      switch (stream.scenario) {
        case "half-close" -> all(id, all);
        case "sink" -> all(id, digest(all).getBytes(StandardCharsets.US_ASCII));
        case "headers" -> all(id, new byte[0]);
        default -> {}
      }
    }

    private void ping() {
      if (pinged < PINGS) {
        write(new DefaultSpdyPingFrame(2 * ++pinged));
      } else {
        all(pinging, (PINGS + " pings").getBytes(StandardCharsets.US_ASCII));
      }
    }

    @Override
    public void channelInactive(ChannelHandlerContext context) {
      Map<String, Object> line = new LinkedHashMap<>();
      account.into(line);
      Peer.print(line);
    }
  }

  private static String digest(byte[] all) {
    return all.length + " " + Peer.hex(Peer.sha256().digest(all));
  }

  /** The opening side of the scenarios. Each waits without a limit of its own; the watchdog ends the process. */
  private static final class Opener extends Session {
    private static final class Stream {
      int id;
      final CompletableFuture<SpdyHeaders> reply = new CompletableFuture<>();
      final CompletableFuture<byte[]> end = new CompletableFuture<>();
      private final ByteArrayOutputStream all = new ByteArrayOutputStream();

      void fail(String why) {
        reply.completeExceptionally(new IOException(why));
        end.completeExceptionally(new IOException(why));
      }

      synchronized int received() {
        return all.size();
      }

      synchronized void take(ByteBuf content) throws IOException {
        content.readBytes(all, content.readableBytes());
      }
    }

    private final Map<Integer, Stream> streams = new ConcurrentHashMap<>();
    private final Map<Integer, CompletableFuture<Void>> pings = new ConcurrentHashMap<>();
    private volatile boolean goneAway;
    private int last = -1;
    private int pinged;

    @Override
    protected void channelRead0(ChannelHandlerContext context, SpdyFrame frame) throws IOException {
      if (frame instanceof SpdyPingFrame ping) {
        pings.remove(ping.id()).complete(null);
      } else if (frame instanceof SpdyGoAwayFrame) {
        goneAway = true;
      } else if (frame instanceof SpdyStreamFrame of && streams.containsKey(of.streamId())) {
        Stream stream = streams.get(of.streamId());
        if (frame instanceof SpdySynReplyFrame reply) {
          stream.reply.complete(reply.headers());
        } else if (frame instanceof SpdyDataFrame data) {
          stream.take(data.content());
        } else if (frame instanceof SpdyRstStreamFrame reset) {
          streams.remove(of.streamId());
          stream.fail("RST_STREAM " + reset.status());
        }
        if (of.isLast()) {
          streams.remove(of.streamId());
          stream.end.complete(stream.all.toByteArray());
        }
      }
    }

    @Override
    public void channelInactive(ChannelHandlerContext context) {
      streams.values().forEach(stream -> stream.fail("the connection has ended"));
      pings.values().forEach(ping -> ping.completeExceptionally(new IOException("the connection has ended")));
    }

    private Stream open(String scenario, int bytes, Consumer<SpdyHeaders> more) {
      Stream stream = new Stream();
      stream.id = last += 2;
      streams.put(stream.id, stream);
      SpdySynStreamFrame syn = new DefaultSpdySynStreamFrame(stream.id, 0, (byte) 0);
      syn.headers().set("scenario", scenario).set("bytes", String.valueOf(bytes));
      more.accept(syn.headers());
      write(syn).addListener(written -> {
        if (!written.isSuccess()) {
          stream.fail("netty does not open it: " + written.cause());
        }
      });
      return stream;
    }

    private Stream opened(String scenario, int bytes) throws ExecutionException, InterruptedException {
      Stream stream = open(scenario, bytes, headers -> {});
      stream.reply.get();
      return stream;
    }

    void run(String scenario, int bytes) throws ExecutionException, InterruptedException, IOException {
      switch (scenario) {
        case "echo" -> echo(bytes);
        case "half-close" -> {
          Stream stream = opened("half-close", bytes);
          byte[] all = Peer.pattern(bytes);
          int most = all.length - 1;
          data(stream.id, Unpooled.wrappedBuffer(all, 0, most), false);
          // The answer comes after anything that the other side would have sent.
          ping();
          check(stream.received() == 0, "the answer came before the end of what was asked");
          data(stream.id, Unpooled.wrappedBuffer(all, most, 1), true);
          check(Arrays.equals(stream.end.get(), all), "not the pattern");
        }
        case "reset" -> {
          Stream stream = opened("reset", 0);
          data(stream.id, Unpooled.copiedBuffer("to be reset", StandardCharsets.US_ASCII), false);
          expect(stream.end, "RST_STREAM CANCEL");
          echo(bytes);
        }
        case "refuse" -> {
          expect(open("refuse", 0, headers -> {}).reply, "RST_STREAM REFUSED_STREAM");
          echo(bytes);
        }
        case "source" -> source("source", bytes);
        case "sink" -> {
          Stream stream = opened("sink", bytes);
          byte[] all = Peer.pattern(bytes);
          all(stream.id, all);
          said(stream, digest(all));
        }
        case "ping" -> {
          for (int i = 0; i < PINGS; i++) {
            ping();
          }
        }
        case "server-ping" -> {
          Stream stream = opened("ping", 0);
          data(stream.id, Unpooled.EMPTY_BUFFER, true);
          said(stream, PINGS + " pings");
        }
        case "thousand" -> {
          Semaphore free = new Semaphore(AT_ONCE);
          List<Stream> streams = new ArrayList<>();
          for (int i = 0; i < THOUSAND; i++) {
            free.acquire();
            Stream stream = open("echo", 0, headers -> {});
            stream.end.whenComplete((all, error) -> free.release());
            streams.add(stream);
            all(stream.id, Peer.pattern(1 + i * 7));
          }
          for (int i = 0; i < THOUSAND; i++) {
            check(Arrays.equals(streams.get(i).end.get(), Peer.pattern(1 + i * 7)), "not the pattern");
          }
        }
        case "headers" -> {
          for (int i = 0; i < PINGS; i++) {
            int number = i;
            headers(sent -> {
              for (int j = 0; j <= number * 10; j++) {
                sent.set("name-" + j, "value " + number * j);
              }
              sent.set("long", "x".repeat(number * 500)).add("many", "one").add("many", "two").set("last", "");
            });
          }
        }
        case "goaway" -> {
          source("goaway", bytes);
          channel.closeFuture().sync();
          check(goneAway, "an end without GOAWAY");
        }
        default -> throw new IOException("unknown scenario");
      }
    }

    private void echo(int bytes) throws ExecutionException, InterruptedException, IOException {
      Stream stream = opened("echo", bytes);
      all(stream.id, Peer.pattern(bytes));
      check(Arrays.equals(stream.end.get(), Peer.pattern(bytes)), "not the pattern");
    }

    private void source(String scenario, int bytes) throws ExecutionException, InterruptedException, IOException {
      Stream stream = opened(scenario, bytes);
      data(stream.id, Unpooled.EMPTY_BUFFER, true);
      check(Arrays.equals(stream.end.get(), Peer.pattern(bytes)), "not the pattern");
    }

    private void headers(Consumer<SpdyHeaders> more) throws ExecutionException, InterruptedException, IOException {
      Stream stream = open("headers", 0, more);
      data(stream.id, Unpooled.EMPTY_BUFFER, true);
      SpdyHeaders sent = new DefaultSpdySynStreamFrame(1, 0, (byte) 0).headers();
      sent.set("scenario", "headers").set("bytes", "0");
      more.accept(sent);
      SpdyHeaders got = stream.reply.get();
      check(got.equals(sent), "the headers came back as " + got);
      stream.end.get();
    }

    private void ping() throws ExecutionException, InterruptedException {
      CompletableFuture<Void> answer = new CompletableFuture<>();
      int id = 2 * pinged++ + 1;
      pings.put(id, answer);
      write(new DefaultSpdyPingFrame(id));
      answer.get();
    }

    private static void said(Stream stream, String what) throws ExecutionException, InterruptedException, IOException {
      String all = new String(stream.end.get(), StandardCharsets.US_ASCII);
      check(all.equals(what), "it says " + all);
    }

    private static void expect(CompletableFuture<?> future, String why) throws InterruptedException, IOException {
      try {
        future.get();
        throw new IOException("no " + why);
      } catch (ExecutionException error) {
        check(error.getCause().getMessage().equals(why), error.getCause().getMessage() + " and not " + why);
      }
    }

    private static void check(boolean holds, String otherwise) throws IOException {
      if (!holds) {
        throw new IOException(otherwise);
      }
    }
  }
}
