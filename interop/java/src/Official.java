import io.kubernetes.client.openapi.ApiClient;
import io.kubernetes.client.util.ClientBuilder;
import java.util.HashMap;
import java.util.Map;
import okhttp3.OkHttpClient;

/** What both programs of the official client need: the server's address, and the result of the handshake. */
final class Official {
  private final OkHttpClient http;
  final ApiClient api;
  /** The subprotocol that the server chose. The library does not show it. */
  volatile String protocol;

  /** @param offer the protocols to offer, where not the library's own */
  Official(String server, String offer) {
    api = new ClientBuilder().setBasePath(server).build();
    http = api.getHttpClient().newBuilder().addInterceptor(chain -> {
      var request = chain.request();
      if (offer != null) {
        request = request.newBuilder().header("Sec-WebSocket-Protocol", offer).build();
      }
      var response = chain.proceed(request);
      protocol = response.header("Sec-WebSocket-Protocol");
      return response;
    }).build();
    api.setHttpClient(http);
  }

  /** Waits for the end of the connection, which the library does not report but the server must perform. */
  void ended() throws InterruptedException {
    while (http.connectionPool().connectionCount() > 0) {
      Thread.sleep(5);
    }
  }

  /** The options of both programs, with and without a value. */
  static Map<String, String> options() {
    Map<String, String> options = new HashMap<>();
    options.put("server", null);
    options.put("namespace", "default");
    options.put("pod", null);
    options.put("protocol", null);
    options.put("result", null);
    return options;
  }
}
