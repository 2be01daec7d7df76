//! [`PemFiles`]: the files of a certificate and its key, and the configuration that they make.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use rustls::{
    ServerConfig,
    crypto::CryptoProvider,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
};

/// `curl --http1.0` offers only the older name of HTTP/1.
const PROTOCOLS: [&[u8]; 3] = [b"h2", b"http/1.1", b"http/1.0"];

const NO_PROVIDER: &str = "rustls has no crypto provider for this process: install one at the start of the program, for example by \
                           rustls::crypto::ring::default_provider().install_default()";

#[derive(Debug)]
pub(super) struct PemFiles {
    pub(super) certificate_chain: PathBuf,
    pub(super) key: PathBuf,
}

impl PemFiles {
    /// Reads the files. Returns a configuration with the process's crypto provider, for HTTP.
    pub(super) fn read(&self) -> io::Result<ServerConfig> {
        let provider = CryptoProvider::get_default().ok_or_else(|| io::Error::other(NO_PROVIDER))?;
        let chain = read_chain(&self.certificate_chain)?;
        let key =
            PrivateKeyDer::from_pem_file(&self.key).map_err(|error| cannot_read("private key", &self.key, &error))?;
        let config = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
        let mut config = config.map_err(|error| {
            let (chain, key) = (self.certificate_chain.display(), self.key.display());
            io::Error::new(ErrorKind::InvalidData, format!("cannot use {chain} with the key {key}: {error}"))
        })?;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(config)
    }
}

fn read_chain(file: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let cannot_read = |error| cannot_read("certificate chain", file, &error);
    let pem = fs::read(file).map_err(|error| cannot_read(pem::Error::Io(error)))?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(cannot_read)?;
    // The reader skips a certificate whose first line it does not recognize, and says nothing.
    let is_begin = |line: &&str| {
        let line = line.trim_start_matches('\u{feff}').trim();
        // Files without a newline at their end were joined if END stands before it. A line that is commented out begins otherwise.
        line.starts_with("-----") && line.contains("-----BEGIN ") && line.ends_with(" CERTIFICATE-----")
    };
    let (found, begun) = (chain.len(), String::from_utf8_lossy(&pem).lines().filter(is_begin).count());
    if begun > found {
        let message = format!(
            "{}: only {found} of {begun} certificates can be read: each must begin with the line -----BEGIN CERTIFICATE-----, without \
             a space, a byte order mark or the END of another before it",
            file.display()
        );
        return Err(io::Error::new(ErrorKind::InvalidData, message));
    }
    if chain.is_empty() { Err(cannot_read(pem::Error::NoItemsFound)) } else { Ok(chain) }
}

fn cannot_read(what: &str, file: &Path, error: &pem::Error) -> io::Error {
    let file = file.display();
    let message = match error {
        pem::Error::Io(error) => {
            return io::Error::new(error.kind(), format!("cannot read the {what} {file}: {error}"));
        }
        pem::Error::NoItemsFound => format!("{file} contains no {what} in PEM format, or an encrypted one"),
        // rustls prints the marker as numbers.
        pem::Error::MissingSectionEnd { .. } => format!("the {what} in {file} is cut off: an END line is missing"),
        error => format!("the {what} in {file} is not valid PEM: {error}"),
    };
    io::Error::new(ErrorKind::InvalidData, message)
}
