//! TLS, as in libpq's `sslmode` ("SSL Support"): `disable`, `allow`, `prefer`, `require`, `verify-ca`, `verify-full`.
//!
//! One verifier serves all modes, because the one in rustls always checks the chain and the name. Below `verify-ca`,
//! only the server's possession of the certificate's key is checked; below `verify-full`, the name is not checked.

use std::{fmt, path::Path, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
    server::ParsedCertificate,
};
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::{Error, Result};

/// libpq's `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl Mode {
    /// The mode of that name.
    pub(super) fn parse(name: &str) -> Result<Self> {
        Ok(match name {
            "disable" => Self::Disable,
            "allow" => Self::Allow,
            "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            _ => {
                return Err(Error::usage("sslmode has an unknown value")
                    .hint("use disable, allow, prefer, require, verify-ca or verify-full"));
            }
        })
    }

    /// The modes that the driver tries, in order; the second only if the server rejected the first because of its
    /// encryption.
    pub(super) fn attempts(self) -> &'static [SslMode] {
        match self {
            Self::Disable => &[SslMode::Disable],
            Self::Allow => &[SslMode::Disable, SslMode::Require],
            Self::Prefer => &[SslMode::Prefer, SslMode::Disable],
            Self::Require | Self::VerifyCa | Self::VerifyFull => &[SslMode::Require],
        }
    }
}

/// The TLS connector for `mode`.
///
/// `root_cert` is `sslrootcert`, or libpq's default file if that exists: a PEM file, or `system`. Without it, the
/// system's root certificates are used, where libpq would fail.
///
/// # Errors
/// The root certificates cannot be read, or `system` is requested with a mode below `verify-full`, which would accept
/// any certificate from a public authority.
pub(super) fn connector(mode: Mode, root_cert: Option<&str>) -> Result<MakeRustlsConnect> {
    if root_cert == Some("system") && mode != Mode::VerifyFull {
        return Err(Error::usage("sslrootcert=system needs sslmode=verify-full")
            .hint("without a check of the host name, any public certificate would be accepted"));
    }
    // As in libpq, root certificates turn `require` into `verify-ca`.
    let checks_chain = mode >= Mode::VerifyCa || (mode == Mode::Require && root_cert.is_some());
    let trust = match root_cert {
        _ if !checks_chain => None,
        Some(file) if file != "system" => Some(roots_of_file(Path::new(file))?),
        _ => Some(roots_of_system()?),
    };
    let provider = Arc::new(ring::default_provider());
    let verifier = Verifier { trust, checks_name: mode == Mode::VerifyFull, provider: Arc::clone(&provider) };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::failed("could not set up TLS").caused_by(e))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

/// The accepted ends of a certificate chain.
struct Trust {
    roots: RootCertStore,
    /// The certificates of `sslrootcert` themselves: a self-signed server certificate is accepted as it is, as in
    /// OpenSSL; webpki rejects one that is marked as an authority's.
    exactly: Vec<CertificateDer<'static>>,
}

fn roots_of_file(file: &Path) -> Result<Trust> {
    let unreadable = |cause: String| {
        Error::usage(format!("could not read the root certificates in {}", file.display())).cause(cause).hint(
            "set sslrootcert (PGSSLROOTCERT) to a PEM file with the certificates to trust, or to `system`",
        )
    };
    let exactly = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>)
        .map_err(|e| unreadable(e.to_string()))?;
    let mut roots = RootCertStore::empty();
    for cert in &exactly {
        roots.add(cert.clone()).map_err(|e| unreadable(e.to_string()))?;
    }
    if exactly.is_empty() {
        return Err(unreadable("the file contains no certificate".to_owned()));
    }
    Ok(Trust { roots, exactly })
}

fn roots_of_system() -> Result<Trust> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // A system certificate that webpki cannot parse must not exclude the others.
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let mut error = Error::failed("the system has no root certificates")
            .hint("install them (ca-certificates), or set sslrootcert to a file");
        if let Some(e) = found.errors.into_iter().next() {
            error = error.caused_by(e);
        }
        return Err(error);
    }
    Ok(Trust { roots, exactly: Vec::new() })
}

struct Verifier {
    trust: Option<Trust>,
    checks_name: bool,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trust, checks_name, .. } = self;
        write!(f, "Verifier {{ checks_chain: {}, checks_name: {checks_name} }}", trust.is_some())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        let Some(trust) = &self.trust else {
            return Ok(ServerCertVerified::assertion());
        };
        let cert = ParsedCertificate::try_from(end_entity)?;
        if !trust.exactly.contains(end_entity) {
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&cert, &trust.roots, intermediates, now, algorithms)?;
        }
        if self.checks_name {
            verify_server_name(&cert, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_that_cannot_be_used_are_refused_before_any_connection() {
        let message = |mode, roots: &str| connector(mode, Some(roots)).err().map(|e| e.to_string());
        insta::assert_snapshot!(message(Mode::VerifyCa, "system").unwrap(), @"
        sslrootcert=system needs sslmode=verify-full
        hint: without a check of the host name, any public certificate would be accepted
        ");
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("root.crt");
        std::fs::write(&file, "nothing").unwrap();
        let shown = message(Mode::Require, &file.display().to_string()).unwrap();
        insta::assert_snapshot!(shown.replace(&dir.path().display().to_string(), "DIR"));
        // No certificates are checked, so none are read.
        assert!(message(Mode::Prefer, "/nowhere/root.crt").is_none());
    }

    #[test]
    fn modes_are_those_of_libpq() {
        assert!(Mode::parse("verify_full").is_err());
        for (name, attempts) in [
            ("disable", 1),
            ("allow", 2),
            ("prefer", 2),
            ("require", 1),
            ("verify-ca", 1),
            ("verify-full", 1),
        ] {
            assert_eq!(Mode::parse(name).unwrap().attempts().len(), attempts);
        }
        // A mode that verifies never falls back to an unencrypted connection.
        for mode in [Mode::Require, Mode::VerifyCa, Mode::VerifyFull] {
            assert!(mode.attempts().iter().all(|m| *m == SslMode::Require));
        }
    }
}
