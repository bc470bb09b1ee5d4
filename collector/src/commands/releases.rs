//! `releases keygen|list`: the online signing keys of the repository, and what lies in it.
//!
//! Only the two roles that can freeze or withhold are signed here; no key that appliances obey ever comes near this machine (R1, R8).

use clap::Subcommand;

use super::exit::{Exit, Failure};
use super::{Room, print_list, say, secret_input};
use crate::releases::online::OnlineKeys;
use crate::releases::{files, kind_name};

/// `releases ...`
#[derive(Debug, Subcommand)]
pub(crate) enum ReleasesCommand {
    /// Make the online keys (snapshot, timestamp) and print their public part for the release engineer's root; once
    Keygen,
    /// Print the online keys' public part again
    Keys,
    /// List the files of the repository, as this collector has verified them
    List,
}

/// Runs `releases ...`.
pub(crate) async fn run(room: &Room, command: ReleasesCommand) -> anyhow::Result<()> {
    let keys_dir = room.config.data_dir.join("keys");
    match command {
        ReleasesCommand::Keygen => {
            room.db().await?;
            if OnlineKeys::load(&keys_dir)?.is_some() {
                return Err(Failure::because(
                    Exit::Exists,
                    "the online keys were made before; `releases keys` prints their public part",
                ));
            }
            for (file, bytes) in OnlineKeys::make(&room.rng)? {
                secret_input::write_private_file(&keys_dir.join(file), &bytes)?;
            }
            say(
                "已生成在线签名密钥。请把下面的公钥交给发布工程师，写入根元数据；各节点须使用同一份密钥。",
                "The online keys are made. Give the public part below to the release engineer, for the root; every node needs the same keys.",
            );
            print_public(&keys_dir)
        }
        ReleasesCommand::Keys => print_public(&keys_dir),
        ReleasesCommand::List => {
            let all = files::list(&mut *room.db().await?.read().await?).await?;
            let lines: Vec<serde_json::Value> = all
                .iter()
                .map(|file| {
                    serde_json::json!({
                        "file": file.file, "kind": kind_name(file.kind()), "state": file.state.as_str(), "sha256": file.sha256,
                        "bytes": file.bytes, "refusal": file.refusal, "expires_at": file.expires_at,
                    })
                })
                .collect();
            print_list(room.json, &lines, |line| {
                let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
                format!("{}  {}  {}  {}  {}", text("state"), text("kind"), text("file"), text("sha256"), text("refusal"))
            })
        }
    }
}

fn print_public(keys_dir: &std::path::Path) -> anyhow::Result<()> {
    let keys = OnlineKeys::load(keys_dir)?;
    let keys = keys.ok_or_else(|| Failure::because(Exit::Data, "there are no online keys: run `releases keygen`"))?;
    println!("{}", serde_json::to_string_pretty(&keys.public())?);
    Ok(())
}
