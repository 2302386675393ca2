//! The query of an exec or attach request: which command, in which container, with which streams.
//!
//! Owns its two spellings: the API server's (`stdin=true`) and the kubelet's (`input=1`). It must not know heads.

use form_urlencoded::Serializer;

use super::Streams;

/// What an exec or attach request asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExecRequest {
    /// The command and its arguments, one each. Empty for attach.
    pub command: Vec<String>,
    /// The container, where the pod has several. The kubelet has it in its path instead.
    pub container: Option<String>,
    /// The streams.
    pub streams: Streams,
}

impl ExecRequest {
    /// A request for a command.
    pub fn new<S: Into<String>>(command: impl IntoIterator<Item = S>, streams: Streams) -> Self {
        Self { command: command.into_iter().map(Into::into).collect(), container: None, streams }
    }

    /// In a container of the pod.
    #[must_use]
    pub fn container(mut self, name: impl Into<String>) -> Self {
        self.container = Some(name.into());
        self
    }

    /// Reads a query, in either spelling. Values that are not `true` or `1` count as false, as in Go's servers, and stderr
    /// is none with a terminal.
    ///
    /// # Errors
    /// [`RequestError::NoStreams`], which the kubelet answers with 400 and the same text.
    pub fn from_query(query: &str) -> Result<Self, RequestError> {
        let mut request = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let set = matches!(&value[..], "true" | "1");
            match &name[..] {
                "command" => request.command.push(value.into_owned()),
                "container" if !value.is_empty() => request.container = Some(value.into_owned()),
                "stdin" | "input" => request.streams.stdin = set,
                "stdout" | "output" => request.streams.stdout = set,
                "stderr" | "error" => request.streams.stderr = set,
                "tty" => request.streams.tty = set,
                _ => {}
            }
        }
        request.streams.stderr &= !request.streams.tty;
        let Streams { stdin, stdout, stderr, .. } = request.streams;
        if stdin || stdout || stderr { Ok(request) } else { Err(RequestError::NoStreams) }
    }

    /// The query for a kube-apiserver, as kubectl writes it.
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

    /// The query for a kubelet, as the API server writes it. The container is in the path there.
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

/// Why a request cannot be served: the client's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// No stream is asked for.
    #[error("you must specify at least 1 of stdin, stdout, stderr")]
    NoStreams,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubectls_query_and_the_kubelets_mean_the_same() {
        let request = ExecRequest::new(["sh", "-c", "echo bye; exit 7"], Streams::OUTPUT).container("main");
        let query = "command=sh&command=-c&command=echo+bye%3B+exit+7&container=main&stderr=true&stdout=true";
        assert_eq!(request.to_query(), query);
        assert_eq!(ExecRequest::from_query(query), Ok(request.clone()));

        let kubelet = "command=sh&command=-c&command=echo+bye%3B+exit+7&error=1&output=1";
        assert_eq!(request.to_kubelet_query(), kubelet);
        assert_eq!(ExecRequest::from_query(kubelet), Ok(ExecRequest { container: None, ..request }));
    }

    #[test]
    fn a_terminal_has_no_stderr_and_no_stream_is_an_error() {
        let request = ExecRequest::from_query("command=sh&stdin=true&stdout=true&stderr=true&tty=true").unwrap();
        assert_eq!(request.streams, Streams::TTY);
        assert_eq!(ExecRequest::from_query("command=sh&tty=1"), Err(RequestError::NoStreams));
        assert_eq!(ExecRequest::from_query("command=sh&stdout=yes"), Err(RequestError::NoStreams));
    }

    #[test]
    fn any_command_survives_its_query() {
        fn property(command: Vec<String>, container: String, streams: u8) -> bool {
            let bit = |n: u8| streams & n != 0;
            let streams = Streams { stdin: bit(1), stdout: true, stderr: bit(2) && !bit(4), tty: bit(4) };
            let mut request = ExecRequest::new(command, streams);
            request.container = Some(container).filter(|name| !name.is_empty());
            ExecRequest::from_query(&request.to_query()) == Ok(request)
        }
        quickcheck::quickcheck(property as fn(Vec<String>, String, u8) -> bool);
    }
}
