import io.kubernetes.client.openapi.ApiClient;
import io.kubernetes.client.util.ClientBuilder;
import java.util.HashMap;
import java.util.Map;
import okhttp3.OkHttpClient;

/** What both programs of the official client need: where the server is, and what the handshake came to. */
final class Official {
  private final OkHttpClient http;
  final ApiClient api;
  /** The subprotocol of the server's choice; the library keeps it to itself. */
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

  /** Waits for the end of the connection too, which is part of what the server has to do: the library says nothing of it. */
  void ended() throws InterruptedException {
    while (http.connectionPool().connectionCount() > 0) {
      Thread.sleep(5);
    }
  }

  /** The options of both, without a value or with it. */
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
