//! Connects over TCP or TLS. The crate takes any IO, so its users connect as they like.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use kubestream::mux::{self, TCP_KEEPALIVE_IDLE, TCP_KEEPALIVE_INTERVAL, TCP_KEEPALIVE_PROBES};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme};
use url::Url;

/// TLS options with kubectl's names. All files are PEM.
#[derive(Debug, Default, Args)]
pub struct Tls {
    /// Path to a PEM file with the certificate of the authority that signed the server's certificate.
    #[arg(long, value_name = "FILE")]
    certificate_authority: Option<PathBuf>,
    /// Do not check the server's certificate. This makes the connection insecure: a man in the middle can read and
    /// change everything.
    #[arg(long, conflicts_with = "certificate_authority")]
    insecure_skip_tls_verify: bool,
    /// Path to a PEM file with the client certificate. Requires --client-key.
    #[arg(long, value_name = "FILE", requires = "client_key")]
    client_certificate: Option<PathBuf>,
    /// Path to a PEM file with the key of the client certificate.
    #[arg(long, value_name = "FILE", requires = "client_certificate")]
    client_key: Option<PathBuf>,
}

pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// Sets what every TCP connection of a program needs: no delay before small writes, and the detection of dead peers.
pub fn set_options(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    mux::set_tcp_keepalive(tcp, TCP_KEEPALIVE_IDLE, TCP_KEEPALIVE_INTERVAL, TCP_KEEPALIVE_PROBES, None)
}

/// Why a connection could not be made. The text names the address, which the errors of the system do not.
#[derive(Debug)]
pub struct Unreachable(String);

impl Unreachable {
    fn error(what: &str, address: &str, error: &io::Error) -> io::Error {
        let text = error.to_string();
        // The number says nothing that the text does not.
        let text = text.split(" (os error ").next().unwrap_or_default();
        io::Error::new(error.kind(), Self(format!("{what} {address}: {text}")))
    }
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Unreachable {}

/// The host and the port of a URL, as in an error.
pub fn address(url: &Url) -> String {
    let port = url.port_or_known_default().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}{port}", url.host_str().unwrap_or_default())
}

/// Connects to the host of a URL, without TLS.
pub async fn connect_tcp(url: &Url) -> io::Result<TcpStream> {
    let no = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, Unreachable(why.to_owned()));
    let host = url.host_str().ok_or_else(|| no("the server's URL has no host"))?;
    let port = url.port_or_known_default();
    let port = port.ok_or_else(|| no("the server's URL has neither http nor https as its scheme"))?;
    let tcp = TcpStream::connect((host.trim_matches(['[', ']']), port)).await;
    let tcp = tcp.map_err(|error| Unreachable::error("cannot connect to", &address(url), &error))?;
    set_options(&tcp)?;
    Ok(tcp)
}

pub async fn connect(url: &str, tls: &Tls) -> io::Result<Box<dyn Io>> {
    connect_over(url, tls, |tcp| tcp).await
}

/// The same, with a wrapper around the socket.
pub async fn connect_over<IO: Io + 'static>(
    url: &str,
    tls: &Tls,
    over: impl FnOnce(TcpStream) -> IO,
) -> io::Result<Box<dyn Io>> {
    let connected = dial(url, tls, over).await;
    connected.map_err(|error| match error.downcast::<io::Error>() {
        Ok(error) => *error,
        Err(error) => io::Error::other(Unreachable(error.to_string())),
    })
}

async fn dial<IO: Io + 'static>(
    url: &str,
    tls: &Tls,
    over: impl FnOnce(TcpStream) -> IO,
) -> Result<Box<dyn Io>, Box<dyn Error + Send + Sync>> {
    let url = Url::parse(url)?;
    if !["http", "https"].contains(&url.scheme()) {
        return Err(format!("the server's URL must begin with http or https, not {}", url.scheme()).into());
    }
    let tcp = over(connect_tcp(&url).await?);
    if url.scheme() == "http" {
        return Ok(Box::new(tcp));
    }
    let host = url.host_str().unwrap_or_default();
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())?;
    let connected = TlsConnector::from(Arc::new(tls.config()?)).connect(name, tcp).await;
    Ok(Box::new(connected.map_err(|error| Unreachable::error("no TLS with", &address(&url), &error))?))
}

impl Tls {
    fn config(&self) -> Result<ClientConfig, Box<dyn Error + Send + Sync>> {
        let provider = Arc::new(ring::default_provider());
        let config =
            ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
        let config = if self.insecure_skip_tls_verify {
            config.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        } else {
            let authority = self.certificate_authority.as_ref();
            let authority = authority.ok_or("https requires --certificate-authority or --insecure-skip-tls-verify")?;
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_file_iter(authority)? {
                roots.add(certificate?)?;
            }
            config.with_root_certificates(roots)
        };
        Ok(match (&self.client_certificate, &self.client_key) {
            (Some(certificate), Some(key)) => {
                let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<_, _>>()?;
                config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key)?)?
            }
            _ => config.with_no_client_auth(),
        })
    }
}

/// Accepts any certificate, but still checks that the server has its key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
