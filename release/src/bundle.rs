//! The signing bundle: one file with everything that is to be signed, passed from signer to signer, each on a machine of its own.
//!
//! It carries the texts whole, the version before of each (so that a signer sees what changes), and the manifests. It holds no secret.
//! Nothing in it is believed at `publish`, which asks the repository who must sign.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mainstay_patchkit::authoring::{Envelope, Signers};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::exit::{Exit, Failure};
use crate::files;

const FORM: &str = "mainstay-signing-bundle-1";

/// What is to be signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Bundle {
    form: String,
    /// The texts.
    pub(crate) documents: Vec<Document>,
    /// The manifests that the texts name newly, base64.
    pub(crate) manifests: Vec<String>,
}

/// One text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Document {
    /// `root`, `targets`, or `<product>-offline`.
    pub(crate) role: String,
    /// The version before, if there was one.
    pub(crate) before: Option<Value>,
    /// The text.
    pub(crate) signed: Value,
    /// Key id and signature, hex.
    pub(crate) signatures: BTreeMap<String, String>,
    /// Whose signatures are needed; of each group its threshold.
    pub(crate) wanted: Vec<Signers>,
}

impl Document {
    /// As signed metadata.
    pub(crate) fn envelope(&self) -> Envelope {
        Envelope { signed: self.signed.clone(), signatures: self.signatures.clone() }
    }

    /// The text's version.
    pub(crate) fn version(&self) -> u64 {
        self.signed["version"].as_u64().unwrap_or_default()
    }

    /// How many signatures are still needed.
    pub(crate) fn missing(&self, wanted: &[Signers]) -> usize {
        let envelope = self.envelope();
        let short = |group: &Signers| group.threshold.saturating_sub(envelope.signers(&group.keys).len());
        wanted.iter().map(short).max().unwrap_or_default()
    }
}

impl Bundle {
    pub(crate) fn new(documents: Vec<Document>, manifests: &[Vec<u8>]) -> Self {
        Self { form: FORM.to_owned(), documents, manifests: manifests.iter().map(|bytes| STANDARD.encode(bytes)).collect() }
    }

    /// Reads one; every text must be what the appliances' reader understands.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let bundle: Self = files::read_json(path, "a signing bundle")?;
        let damaged = |why: String| Failure::because(Exit::Data, format!("{}: {why}", path.display()));
        if bundle.form != FORM {
            return Err(damaged(format!("form {:?}: expected {FORM:?}", bundle.form)));
        }
        for document in &bundle.documents {
            document
                .envelope()
                .read_back()
                .map_err(|error| damaged(format!("{}: cannot be read back: {error}", document.role)))?;
        }
        Ok(bundle)
    }

    pub(crate) fn manifest_bytes(&self) -> anyhow::Result<Vec<Vec<u8>>> {
        let decode = |text: &String| {
            STANDARD
                .decode(text)
                .map_err(|error| Failure::because(Exit::Data, format!("bundle: a manifest is not base64: {error}")))
        };
        self.manifests.iter().map(decode).collect()
    }

    /// Writes it in the place of the one before.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let bytes = serde_json::to_vec_pretty(self)?;
        files::replace(path, 0o644, |file| Ok(std::io::Write::write_all(file, &bytes)?))
    }

    /// Signatures still needed, by role.
    pub(crate) fn missing(&self) -> BTreeMap<&str, usize> {
        self.documents.iter().map(|document| (document.role.as_str(), document.missing(&document.wanted))).collect()
    }

    /// Takes over the good signatures of another copy of the same bundle.
    pub(crate) fn merge(&mut self, other: &Self) -> anyhow::Result<()> {
        let texts = |bundle: &Self| bundle.documents.iter().map(|document| document.signed.clone()).collect::<Vec<_>>();
        if texts(self) != texts(other) || self.manifests != other.manifests {
            return Err(Failure::because(Exit::Data, "the two bundles are not copies of one: their texts differ"));
        }
        for (document, other) in self.documents.iter_mut().zip(&other.documents) {
            for key in other.envelope().signers(document.wanted.iter().flat_map(|group| &group.keys)) {
                let id = key.key_id();
                if let Some(signature) = other.signatures.get(&id) {
                    document.signatures.insert(id, signature.clone());
                }
            }
        }
        Ok(())
    }
}
