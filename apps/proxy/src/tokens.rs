//! Where the proxy's tokens come from: an option, a file or the environment.
//!
//! Reads them. It compares and sends none.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use kubestream_apps::Failure;
use kubestream_apps::stdio::Stdin;

#[derive(Args)]
pub(crate) struct Tokens {
    /// Require this bearer token from clients, and answer for every host [default: clients are not authenticated]. Other
    /// users of this machine can see it in the list of processes, so prefer --token-file or the environment variable
    /// KUBESTREAM_TOKEN.
    #[arg(long)]
    token: Option<String>,
    /// Require from clients the bearer token in this file. "-" reads it from stdin.
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// Send this bearer token to the backend [default: none]. Other users of this machine can see it in the list of
    /// processes, so prefer --backend-token-file or the environment variable KUBESTREAM_BACKEND_TOKEN.
    #[arg(long, value_name = "TOKEN")]
    backend_token: Option<String>,
    /// Send the backend the bearer token in this file. "-" reads it from stdin.
    #[arg(long, value_name = "FILE", conflicts_with = "backend_token")]
    backend_token_file: Option<PathBuf>,
}

/// The tokens themselves.
pub(crate) struct Secrets {
    /// What clients must know.
    pub(crate) client: Option<String>,
    /// What the backend gets.
    pub(crate) backend: Option<String>,
}

impl Tokens {
    /// An option counts more than the environment. A token that is given but empty is an error, because a proxy that was
    /// to ask for one must not start without it.
    pub(crate) fn read(self) -> Result<Secrets, Failure> {
        let from_stdin = |file: &Option<PathBuf>| file.as_deref() == Some(Path::new("-"));
        if from_stdin(&self.token_file) && from_stdin(&self.backend_token_file) {
            return Err("--token-file and --backend-token-file cannot both read stdin".into());
        }
        Ok(Secrets {
            client: secret(self.token, self.token_file, ["--token", "--token-file", "KUBESTREAM_TOKEN"])?,
            backend: secret(
                self.backend_token,
                self.backend_token_file,
                ["--backend-token", "--backend-token-file", "KUBESTREAM_BACKEND_TOKEN"],
            )?,
        })
    }
}

/// Returns a token, if one is given. No error shows it.
fn secret(
    given: Option<String>,
    file: Option<PathBuf>,
    [option, file_option, variable]: [&str; 3],
) -> Result<Option<String>, Failure> {
    let (source, token) = match (given, file) {
        (Some(token), _) => (option, token),
        (None, Some(file)) => {
            let text = text(&file).map_err(|error| format!("{file_option}: {}: {error}", file.display()))?;
            (file_option, text.trim_end_matches(['\r', '\n']).to_owned())
        }
        (None, None) => match std::env::var_os(variable) {
            Some(token) => (variable, token.into_string().map_err(|_| format!("{variable}: not UTF-8"))?),
            None => return Ok(None),
        },
    };
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("{source}: a token must not be empty, and has neither spaces nor line breaks").into());
    }
    Ok(Some(token))
}

fn text(file: &Path) -> std::io::Result<String> {
    const MOST: u64 = 64 * 1024;
    let mut text = String::new();
    if file == Path::new("-") {
        Stdin.take(MOST).read_to_string(&mut text)?;
    } else {
        std::fs::File::open(file)?.take(MOST).read_to_string(&mut text)?;
    }
    Ok(text)
}
