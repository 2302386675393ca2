//! The query of an exec or attach request: which command, in which container, with which streams.
//!
//! Reads and writes both forms of the query, the API server's (`stdin=true`) and the kubelet's (`input=1`). Knows
//! nothing of the rest of a request.

use form_urlencoded::Serializer;

use super::error::Error;
use super::streams::Streams;

/// What an exec or attach request asks for: the contents of its query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExecRequest {
    /// The command and its arguments, one string each. Empty for attach.
    pub command: Vec<String>,
    /// The container, if the request names one. A request to a kubelet names it in the path, not in the query.
    pub container: Option<String>,
    /// The streams of the session.
    pub streams: Streams,
}

impl ExecRequest {
    /// A request to run a command.
    pub fn new<S: Into<String>>(command: impl IntoIterator<Item = S>, streams: Streams) -> Self {
        Self { command: command.into_iter().map(Into::into).collect(), container: None, streams }
    }

    /// Names the container of the pod.
    #[must_use]
    pub fn container(mut self, name: impl Into<String>) -> Self {
        self.container = Some(name.into());
        self
    }

    /// Reads a query, in either form. In the API server's form every value is true except `false` and `0`; even a
    /// missing value, as in `?stdin&tty`, is true. In the kubelet's form only `1` and `true` are true. If a name is
    /// repeated, its first value counts, as in Go's servers. `tty` turns stderr off.
    ///
    /// # Errors
    /// [`Error::NoStreams`] if the query asks for none of stdin, stdout and stderr. The client is at fault: a kubelet
    /// answers such a request with 400 and the text of this error.
    pub fn from_query(query: &str) -> Result<Self, Error> {
        let mut request = Self::default();
        let (mut stdin, mut stdout, mut stderr, mut tty) = (None, None, None, None);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let api = value != "0" && !value.eq_ignore_ascii_case("false");
            let kubelet = matches!(&value[..], "true" | "1");
            let (stream, set) = match &name[..] {
                "command" => {
                    request.command.push(value.into_owned());
                    continue;
                }
                "container" => {
                    request.container.get_or_insert_with(|| value.into_owned());
                    continue;
                }
                "stdin" => (&mut stdin, api),
                "stdout" => (&mut stdout, api),
                "stderr" => (&mut stderr, api),
                "tty" => (&mut tty, api),
                "input" => (&mut stdin, kubelet),
                "output" => (&mut stdout, kubelet),
                "error" => (&mut stderr, kubelet),
                _ => continue,
            };
            stream.get_or_insert(set);
        }
        let set = |stream: Option<bool>| stream.unwrap_or(false);
        let (stdin, stdout, tty) = (set(stdin), set(stdout), set(tty));
        // Of several containers Go takes the first, and an empty name means the default container.
        request.container = request.container.filter(|name| !name.is_empty());
        request.streams = Streams { stdin, stdout, stderr: set(stderr) && !tty, tty };
        if stdin || stdout || request.streams.stderr { Ok(request) } else { Err(Error::NoStreams) }
    }

    /// The query for a kube-apiserver, as kubectl writes it: `command=ls&container=main&stdout=true`. It does not begin
    /// with `?`.
    #[must_use]
    pub fn to_query(&self) -> String {
        let mut query = Serializer::new(String::new());
        for argument in &self.command {
            query.append_pair("command", argument);
        }
        if let Some(container) = &self.container {
            query.append_pair("container", container);
        }
        let Streams { stdin, stdout, stderr, tty } = self.streams;
        for (name, set) in [("stderr", stderr && !tty), ("stdin", stdin), ("stdout", stdout), ("tty", tty)] {
            if set {
                query.append_pair(name, "true");
            }
        }
        query.finish()
    }

    /// The query for a kubelet, as the API server writes it: `command=ls&output=1`. It does not begin with `?`. It does
    /// not name the container, because the path does.
    #[must_use]
    pub fn to_kubelet_query(&self) -> String {
        let mut query = Serializer::new(String::new());
        for argument in &self.command {
            query.append_pair("command", argument);
        }
        let Streams { stdin, stdout, stderr, tty } = self.streams;
        for (name, set) in [("error", stderr && !tty), ("input", stdin), ("output", stdout), ("tty", tty)] {
            if set {
                query.append_pair(name, "1");
            }
        }
        query.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubectls_query_and_the_kubelets_mean_the_same() {
        let request = ExecRequest::new(["sh", "-c", "echo bye; exit 7"], Streams::OUTPUT).container("main");
        let query = "command=sh&command=-c&command=echo+bye%3B+exit+7&container=main&stderr=true&stdout=true";
        assert_eq!(request.to_query(), query);
        assert_eq!(ExecRequest::from_query(query).unwrap(), request);

        let kubelet = "command=sh&command=-c&command=echo+bye%3B+exit+7&error=1&output=1";
        assert_eq!(request.to_kubelet_query(), kubelet);
        assert_eq!(ExecRequest::from_query(kubelet).unwrap(), ExecRequest { container: None, ..request });
    }

    #[test]
    fn a_terminal_has_no_stderr_and_no_stream_is_an_error() {
        let request = ExecRequest::from_query("command=sh&stdin=true&stdout=true&stderr=true&tty=true").unwrap();
        assert_eq!(request.streams, Streams::TTY);
        assert!(matches!(ExecRequest::from_query("command=sh&tty=1"), Err(Error::NoStreams)));
        assert!(matches!(ExecRequest::from_query("command=sh&output=yes"), Err(Error::NoStreams)));
    }

    /// apimachinery's `Convert_Slice_string_To_bool`, and cri-streaming's `NewOptions`.
    #[test]
    fn each_spelling_has_its_own_true() {
        let streams = |query: &str| ExecRequest::from_query(query).unwrap().streams;
        assert_eq!(streams("stdin&stdout=yes&stderr=1"), Streams::PIPES);
        assert_eq!(streams("stdin=FALSE&stdout=&stderr=0"), Streams { stdout: true, ..Streams::default() });
        assert_eq!(streams("input=&output=1&error=2&tty"), Streams { stdout: true, tty: true, ..Streams::default() });
        assert_eq!(
            streams("stdin=true&stdin=false&stdout=false&stdout"),
            Streams { stdin: true, ..Streams::default() }
        );
    }

    #[test]
    fn any_command_survives_its_query() {
        fn property(command: Vec<String>, container: String, streams: u8) -> bool {
            let bit = |n: u8| streams & n != 0;
            let streams = Streams { stdin: bit(1), stdout: true, stderr: bit(2) && !bit(4), tty: bit(4) };
            let mut request = ExecRequest::new(command, streams);
            request.container = Some(container).filter(|name| !name.is_empty());
            ExecRequest::from_query(&request.to_query()).unwrap() == request
        }
        quickcheck::quickcheck(property as fn(Vec<String>, String, u8) -> bool);
    }
}
