//! The monitoring agents of Debian that stand beside ours: collectd, monit, node_exporter, zabbix_agentd, as far as installed.
//!
//! Each measures the machine every 10 s; monit also asks the same services once a minute; node_exporter and zabbix_agentd are
//! asked for their values every 10 s, as their servers would.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::postgres::free_port;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::JoinSet;

use super::footprint::Measured;
use super::services::Services;

const INTERVAL: Duration = Duration::from_secs(10);
const ZABBIX_KEYS: [&str; 10] = [
    "system.cpu.util[,user]",
    "system.cpu.util[,system]",
    "system.cpu.util[,idle]",
    "system.cpu.load[all,avg1]",
    "vm.memory.size[available]",
    "vm.memory.size[total]",
    "vfs.fs.size[/,pfree]",
    "vfs.fs.inode[/,pfree]",
    "net.if.in[lo]",
    "net.if.out[lo]",
];

/// Starts those that are installed, with their files in `folder`, and those who ask them in `askers`.
///
/// # Errors
/// When one that is installed does not start.
pub(crate) async fn start(folder: &Path, services: &Services, askers: &mut JoinSet<()>) -> Result<Vec<Measured>> {
    let mut peers = Vec::new();
    let files = folder.display();
    if installed("/usr/sbin/collectd") {
        let sink = UdpSocket::bind("127.0.0.1:0").await?;
        let port = sink.local_addr()?.port();
        askers.spawn(async move { while sink.recv(&mut [0; 2048]).await.is_ok() {} });
        let plugins: String =
            ["cpu", "memory", "df", "disk", "interface", "load", "network"].map(|name| format!("LoadPlugin {name}\n")).concat();
        let config = format!(
            "Hostname \"bench\"\nFQDNLookup false\nBaseDir \"{files}\"\nPIDFile \"{files}/collectd.own-pid\"\n\
             TypesDB \"/usr/share/collectd/types.db\"\nInterval 10\nReadThreads 1\nWriteThreads 1\n{plugins}\
             <Plugin network>\n  Server \"127.0.0.1\" \"{port}\"\n</Plugin>\n"
        );
        fs::write(folder.join("collectd.conf"), config)?;
        let mut command = Command::new("/usr/sbin/collectd");
        command.args(["-f", "-C"]).arg(folder.join("collectd.conf"));
        peers.push(Measured::start("collectd", &command, folder).await?);
    }
    if installed("/usr/bin/monit") {
        let config = format!(
            "set daemon 10\nset logfile {files}/monit.own-log\nset idfile {files}/monit.id\nset statefile {files}/monit.state\n\
             set pidfile {files}/monit.own-pid\ncheck system bench\n  if loadavg (1min) > 100 then alert\n\
             check filesystem rootfs with path /\n  if space usage > 99% then alert\ncheck network lo with interface lo\n{}",
            services.for_monit()
        );
        let file = folder.join("monitrc");
        fs::write(&file, config)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o700))?;
        let mut command = Command::new("/usr/bin/monit");
        command.args(["-I", "-c"]).arg(file);
        peers.push(Measured::start("monit", &command, folder).await?);
    }
    if installed("/usr/bin/prometheus-node-exporter") {
        let port = free_port()?;
        let mut command = Command::new("/usr/bin/prometheus-node-exporter");
        command.arg(format!("--web.listen-address=127.0.0.1:{port}")).arg("--log.level=error");
        peers.push(Measured::start("node_exporter", &command, folder).await?);
        askers.spawn(every_interval(port, vec![b"GET /metrics HTTP/1.0\r\n\r\n".to_vec()]));
    }
    if installed("/usr/sbin/zabbix_agentd") {
        let port = zabbix_port()?;
        let config = format!(
            "Server=127.0.0.1\nListenIP=127.0.0.1\nListenPort={port}\nHostname=bench\nLogType=console\nAllowRoot=1\n\
             PidFile={files}/zabbix.own-pid\nStartAgents=3\n"
        );
        fs::write(folder.join("zabbix.conf"), config)?;
        let mut command = Command::new("/usr/sbin/zabbix_agentd");
        command.args(["-f", "-c"]).arg(folder.join("zabbix.conf"));
        peers.push(Measured::start("zabbix_agentd", &command, folder).await?);
        askers.spawn(every_interval(port, ZABBIX_KEYS.map(zabbix_question).to_vec()));
    }
    Ok(peers)
}

fn installed(path: &str) -> bool {
    let found = Path::new(path).exists();
    if !found {
        println!("{path} is not installed: left out (scripts/setup.sh peers)");
    }
    found
}

/// zabbix_agentd takes none above 32767.
fn zabbix_port() -> Result<u16> {
    let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    (20_050..32_768).find(free).context("a free port for zabbix_agentd")
}

/// The header of the Zabbix protocol, its length, the key.
fn zabbix_question(key: &str) -> Vec<u8> {
    let mut question = b"ZBXD\x01".to_vec();
    question.extend((key.len() as u64).to_le_bytes());
    question.extend(key.bytes());
    question
}

async fn every_interval(port: u16, questions: Vec<Vec<u8>>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    loop {
        ticks.tick().await;
        for question in &questions {
            // It may still be starting; a peer that died is told of when its window ends.
            ask(port, question).await.unwrap_or_default();
        }
    }
}

async fn ask(port: u16, question: &[u8]) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(question).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(())
}
