//! The small text (TOML) that a release engineer writes for a file, and what becomes of it: a manifest.

use std::collections::BTreeSet;
use std::path::Path;

use mainstay_patchkit::archive::Packed;
use mainstay_patchkit::bounds;
use mainstay_patchkit::manifest::{
    Action, Body, Content, DataChange, Document, FORMAT, Health, Licence, Manifest, Patch, Run, Script, Texts, Withdrawal,
};
use mainstay_shared::patch::PatchKind;
use semver::{Version, VersionReq};
use serde::Deserialize;

use crate::exit::{Exit, Failure};
use crate::files;

/// The text.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Draft {
    product: String,
    version: Version,
    /// Default: the version; `agent-` before it where it updates the agent.
    name: Option<String>,
    #[serde(default)]
    hardware: BTreeSet<String>,
    title: Texts,
    #[serde(default)]
    notes: Texts,
    patch: Option<PatchDraft>,
    action: Option<ActionDraft>,
    document: Option<DocumentDraft>,
    licence: Option<Licence>,
    withdrawal: Option<Withdrawal>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PatchDraft {
    from: VersionReq,
    #[serde(default)]
    features: BTreeSet<String>,
    #[serde(default)]
    services: Vec<String>,
    data_change: DataChange,
    health: Health,
    #[serde(default)]
    security_fix: bool,
    /// `tree`, `packages` or `agent`.
    r#as: As,
    #[serde(default)]
    scripts: Vec<Script>,
    #[serde(default)]
    packages: Vec<(String, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum As {
    Tree,
    Packages,
    Agent,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ActionDraft {
    restart_service: Option<String>,
    program: Option<Vec<String>>,
    timeout_s: u32,
    #[serde(default = "an_hour")]
    min_interval_s: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DocumentDraft {
    /// The file with the document's text, beside the draft.
    text_file: String,
}

fn an_hour() -> u32 {
    3600
}

impl Draft {
    /// Reads one.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = String::from_utf8_lossy(&files::read(path)?).into_owned();
        toml::from_str(&text).map_err(|error| Failure::because(Exit::Config, format!("{}: {error}", path.display())))
    }

    /// The manifest, within what an appliance accepts. `folder` is where the draft lies; `packed` is the payload of a patch.
    pub(crate) fn manifest(self, kind: PatchKind, folder: &Path, packed: Option<Packed>) -> anyhow::Result<Manifest> {
        let parts = [self.patch.is_some(), self.action.is_some(), self.document.is_some(), self.licence.is_some()];
        if parts.into_iter().chain([self.withdrawal.is_some()]).filter(|part| *part).count() != 1 {
            return Err(wrong("expected one of [patch], [action], [document], [licence], [withdrawal]"));
        }
        let name = self.target();
        let body = match (kind, self.patch, self.action, self.document, self.licence, self.withdrawal) {
            (PatchKind::Patch, Some(patch), ..) => {
                Body::Patch(patch.body(packed.ok_or_else(|| wrong("--dir: expected the folder that a patch brings"))?)?)
            }
            (PatchKind::Action, _, Some(action), ..) => Body::Action(action.body()?),
            (PatchKind::Policy, _, _, Some(document), ..) => Body::Policy(document.body(folder)?),
            (PatchKind::Profile, _, _, Some(document), ..) => Body::Profile(document.body(folder)?),
            (PatchKind::SupportKey, _, _, Some(document), ..) => Body::SupportKey(document.body(folder)?),
            (PatchKind::Licence, _, _, _, Some(licence), _) => Body::Licence(licence),
            (PatchKind::Withdrawal, .., Some(withdrawal)) => Body::Withdrawal(withdrawal),
            _ => return Err(wrong("its table does not fit --kind")),
        };
        let manifest = Manifest {
            format: FORMAT,
            name,
            product: self.product,
            version: self.version,
            hardware: self.hardware,
            title: self.title,
            notes: self.notes,
            body,
        };
        // What can't be read back is not signed: the appliance's reader has the last word.
        let read = Manifest::read(&serde_json::to_vec(&manifest)?).and_then(|read| bounds::check(&read).map(|()| read));
        read.map_err(|refusal| wrong(&refusal.to_string()))
    }

    /// The product, to find who signs for it.
    pub(crate) fn product(&self) -> &str {
        &self.product
    }

    /// The payload's file name.
    pub(crate) fn payload_name(&self) -> String {
        format!("{}-{}.payload", self.product, self.target())
    }

    /// The name that was given; else the version, of the agent said so: the product may have the same.
    fn target(&self) -> String {
        let made = if self.updates_agent() { format!("agent-{}", self.version) } else { self.version.to_string() };
        self.name.clone().unwrap_or(made)
    }

    /// Whether it brings the agent itself.
    pub(crate) fn updates_agent(&self) -> bool {
        self.patch.as_ref().is_some_and(|patch| patch.r#as == As::Agent)
    }
}

impl PatchDraft {
    fn body(self, packed: Packed) -> anyhow::Result<Patch> {
        let content = match self.r#as {
            As::Tree => Content::Tree { tree_sha256: packed.tree_sha256, scripts: self.scripts },
            As::Packages => Content::Packages { packages: self.packages },
            As::Agent => Content::Agent { tree_sha256: packed.tree_sha256 },
        };
        Ok(Patch {
            from: self.from,
            features: self.features,
            payload: packed.payload,
            content,
            services: self.services,
            data_change: self.data_change,
            health: self.health,
            security_fix: self.security_fix,
        })
    }
}

impl ActionDraft {
    fn body(self) -> anyhow::Result<Action> {
        let run = match (self.restart_service, self.program) {
            (Some(service), None) => Run::RestartService { service },
            (None, Some(argv)) => Run::Program { argv },
            _ => return Err(wrong("[action]: expected either restart_service = \"name\" or program = [\"/path\", ...]")),
        };
        Ok(Action { run, timeout_s: self.timeout_s, min_interval_s: self.min_interval_s })
    }
}

impl DocumentDraft {
    fn body(self, folder: &Path) -> anyhow::Result<Document> {
        let bytes = files::read(&folder.join(&self.text_file))?;
        let text = String::from_utf8(bytes).map_err(|_| wrong(&format!("{}: expected text in UTF-8", self.text_file)))?;
        Ok(Document { text })
    }
}

fn wrong(why: &str) -> anyhow::Error {
    Failure::because(Exit::Config, format!("the draft: {why}"))
}
