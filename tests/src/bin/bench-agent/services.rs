//! The business services that the agent asks: two by TLS, one of plain HTTP that a fault can be made of, and one plugin.
//!
//! The TLS servers resume no session: each question costs a full handshake.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use e2e::browser::install_crypto;
use e2e::business::BusinessService;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

const ANSWER: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 18\r\nConnection: close\r\n\r\nbusiness as usual\n";

/// All that is asked once a minute.
pub(crate) struct Services {
    /// The one that can be taken down.
    pub(crate) front: BusinessService,
    tls_ports: [u16; 2],
    ca_file: PathBuf,
    plugin: PathBuf,
    _tasks: JoinSet<()>,
}

impl Services {
    /// Starts them; the CA's certificate and the plugin lie in `folder`.
    ///
    /// # Errors
    /// When keys can't be made, a port bound or a file written.
    pub(crate) async fn start(folder: &Path) -> Result<Self> {
        install_crypto();
        let mut ca = CertificateParams::new(Vec::new())?;
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;
        let ca_file = folder.join("services-ca.pem");
        std::fs::write(&ca_file, issuer.pem())?;
        let mut tasks = JoinSet::new();
        let tls_ports = [serve_tls(&issuer, &mut tasks).await?, serve_tls(&issuer, &mut tasks).await?];
        let plugin = folder.join("check_queue");
        std::fs::write(&plugin, "#!/bin/sh\necho 'OK - queue is short|length=3;10;20'\n")?;
        std::fs::set_permissions(&plugin, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        Ok(Self { front: BusinessService::start().await?, tls_ports, ca_file, plugin, _tasks: tasks })
    }

    /// As the agent is told of them.
    pub(crate) fn for_agent(&self) -> String {
        let mut text = String::new();
        let ca = self.ca_file.display();
        for (name, check) in [
            ("payments", format!("kind = \"http\"\nurl = \"https://localhost:{}/\"\nca_file = \"{ca}\"", self.tls_ports[0])),
            ("clearing", format!("kind = \"http\"\nurl = \"https://localhost:{}/\"\nca_file = \"{ca}\"", self.tls_ports[1])),
            ("front", format!("kind = \"http\"\nurl = \"{}\"", self.front.url())),
        ] {
            text.push_str(&format!("[[service]]\nname = \"{name}\"\ntitle = \"{name}\"\ninterval = \"60s\"\n\n"));
            text.push_str(&format!("[[service.check]]\nname = \"page\"\n{check}\n\n"));
            if name == "front" {
                let plugin = self.plugin.display();
                text.push_str(&format!("[[service.check]]\nname = \"queue\"\nkind = \"plugin\"\ncommand = [\"{plugin}\"]\n\n"));
            }
        }
        text
    }

    /// The same for monit, which asks every sixth cycle.
    pub(crate) fn for_monit(&self) -> String {
        let ca = self.ca_file.display();
        let mut text = format!("check program queue with path \"{}\"\n  every 6 cycles\n", self.plugin.display());
        text.push_str("  if status != 0 then alert\n");
        for (name, port, protocol) in [
            ("payments", self.tls_ports[0], "https"),
            ("clearing", self.tls_ports[1], "https"),
            ("front", self.front.address().port(), "http"),
        ] {
            let with =
                if protocol == "https" { format!(" with ssl options {{CACertificateFile: \"{ca}\"}}") } else { String::new() };
            text.push_str(&format!("check host {name} with address localhost\n  every 6 cycles\n"));
            text.push_str(&format!("  if failed port {port} protocol {protocol}{with} then alert\n"));
        }
        text
    }
}

async fn serve_tls(issuer: &CertifiedIssuer<'static, KeyPair>, tasks: &mut JoinSet<()>) -> Result<u16> {
    let key = KeyPair::generate()?;
    let leaf = CertificateParams::new(vec!["localhost".into()])?.signed_by(&key, issuer)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![leaf.der().clone()], key)?;
    config.send_tls13_tickets = 0;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            while connections.try_join_next().is_some() {}
            let acceptor = acceptor.clone();
            connections.spawn(async move { answer(acceptor, stream).await.unwrap_or_default() });
        }
    });
    Ok(port)
}

async fn answer(acceptor: TlsAcceptor, stream: TcpStream) -> Result<()> {
    let mut stream = acceptor.accept(stream).await?;
    let mut request = Vec::new();
    while !request.windows(4).any(|w| w == b"\r\n\r\n") && request.len() < 16 << 10 {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    stream.write_all(ANSWER.as_bytes()).await?;
    Ok(stream.shutdown().await?)
}
