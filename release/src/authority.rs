//! Who may sign what: the keys and thresholds of a root and of the delegations below it, as one thing that can be changed.

use std::collections::{BTreeMap, BTreeSet};

use mainstay_patchkit::authoring::{PublicKey, Signers};
use mainstay_patchkit::manifest::Manifest;
use serde_json::Value;

use crate::exit::{Exit, Failure};

/// The four roles that a root names.
pub(crate) const ROOT_ROLES: [&str; 4] = ["root", "targets", "snapshot", "timestamp"];

/// Signers by role: those of the root by their names, those of products by the product's name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Authority {
    pub(crate) roles: BTreeMap<String, Signers>,
    pub(crate) products: BTreeMap<String, Signers>,
}

impl Authority {
    /// As signed texts say it.
    pub(crate) fn read(root: &Value, targets: &Value) -> anyhow::Result<Self> {
        let mut roles = BTreeMap::new();
        for role in ROOT_ROLES {
            roles.insert(role.to_owned(), signers(&root["keys"], &root["roles"][role], role)?);
        }
        Ok(Self { roles, products: Self::read_products(targets)? })
    }

    /// Who signs for products, as the top targets say.
    pub(crate) fn read_products(targets: &Value) -> anyhow::Result<BTreeMap<String, Signers>> {
        let mut products = BTreeMap::new();
        for delegated in targets["delegations"]["roles"].as_array().into_iter().flatten() {
            let name = delegated["name"].as_str().unwrap_or_default();
            let Some(product) = name.strip_suffix("-offline") else { continue };
            products.insert(product.to_owned(), signers(&targets["delegations"]["keys"], delegated, name)?);
        }
        Ok(products)
    }

    /// The signers of a role of the root, or of a product.
    pub(crate) fn of(&self, role: &str) -> anyhow::Result<&Signers> {
        self.roles.get(role).or_else(|| self.products.get(role)).ok_or_else(|| self.unknown(role))
    }

    /// The same, to be changed.
    pub(crate) fn of_mut(&mut self, role: &str) -> anyhow::Result<&mut Signers> {
        let unknown = self.unknown(role);
        self.roles.get_mut(role).or_else(|| self.products.get_mut(role)).ok_or(unknown)
    }

    fn unknown(&self, role: &str) -> anyhow::Error {
        let known: Vec<&str> = self.roles.keys().chain(self.products.keys()).map(String::as_str).collect();
        Failure::because(Exit::Config, format!("role {role}: expected one of {}", known.join(", ")))
    }

    /// All roles in which a key signs.
    pub(crate) fn roles_of(&self, key: &PublicKey) -> Vec<String> {
        let all = self.roles.iter().chain(&self.products);
        all.filter(|(_, signers)| signers.keys.contains(key)).map(|(role, _)| role.clone()).collect()
    }

    /// Every role must be able to reach its threshold, and no product's name may begin with another's and a dash: their files' names
    /// would mix.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        for (role, signers) in self.roles.iter().chain(&self.products) {
            let (keys, threshold) = (signers.keys.len(), signers.threshold);
            if threshold == 0 || threshold > keys {
                let told =
                    format!("{role}: threshold {threshold} of {keys} keys: expected 1 to {keys}; add a key or lower --threshold");
                return Err(Failure::because(Exit::Config, told));
            }
        }
        for product in self.products.keys() {
            let clash = self.products.keys().find(|other| other.starts_with(&format!("{product}-")));
            if let Some(other) = clash {
                let told =
                    format!("products {product} and {other}: expected names of which none begins with another's and a dash");
                return Err(Failure::because(Exit::Config, told));
            }
        }
        Ok(())
    }
}

/// The name under which a role's metadata is kept: products have `<product>-offline`.
pub(crate) fn file_role(role: &str) -> String {
    if ROOT_ROLES.contains(&role) { role.to_owned() } else { Manifest::role_name(role) }
}

fn signers(keys: &Value, role: &Value, name: &str) -> anyhow::Result<Signers> {
    let damaged = |why: &str| Failure::because(Exit::Data, format!("metadata: {name}: {why}"));
    let ids = role["keyids"].as_array().ok_or_else(|| damaged("no keyids"))?;
    let key = |id: &Value| {
        let public = id.as_str().and_then(|id| keys[id]["keyval"]["public"].as_str());
        public.map(|public| PublicKey(public.to_owned())).ok_or_else(|| damaged("a key that isn't there"))
    };
    let keys: BTreeSet<PublicKey> = ids.iter().map(key).collect::<Result<_, _>>()?;
    let threshold = role["threshold"].as_u64().and_then(|threshold| usize::try_from(threshold).ok());
    Ok(Signers { keys, threshold: threshold.ok_or_else(|| damaged("no threshold"))? })
}
