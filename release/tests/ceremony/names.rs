//! A name belongs to one content for ever: offers, mails and receipts know a file by it.

use super::*;

impl Table {
    fn bundle(&self, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path(name)).unwrap()).unwrap()
    }

    fn publish(&self, bundle: &str, repository: &str) {
        self.sign(bundle, &["anna", "ben"]);
        self.done(&["publish", bundle, "--repository", repository]);
    }
}

#[test]
fn what_is_published_is_never_replaced_under_its_name() {
    let table = Table::new();
    table.init();
    table.publish("first.bundle", "repository");
    let copied = Command::new("cp").arg("-r").args([table.path("repository"), table.path("other")]).status().unwrap();
    assert!(copied.success());
    table.build("2.1.0", "patch.bundle");
    table.publish("patch.bundle", "repository");
    let published = fs::read(table.path("repository/files/acme-gateway-2.1.0.mpatch")).unwrap();

    // Another release engineer's copy, where the same name came to mean something else.
    table.draft("2.1.0");
    fs::write(table.path("tree/bin/web"), "#!/bin/sh\necho something else\n").unwrap();
    let build = ["build", "--kind", "patch", "draft.toml", "--dir", "tree", "--repository", "other", "--out", "drift.bundle"];
    table.done(&build);
    table.publish("drift.bundle", "other");
    table.draft("2.1.5");
    let build = ["build", "--kind", "patch", "draft.toml", "--dir", "tree", "--repository", "other", "--out", "later.bundle"];
    table.done(&build);
    table.sign("later.bundle", &["anna", "ben"]);
    table.refused(77, "built on another text", &["publish", "later.bundle", "--repository", "repository"]);

    // A bundle that was bent by hand so that it stands on what is there, and names the other content.
    let drift = table.bundle("drift.bundle");
    table.build("2.2.0", "bent.bundle");
    let mut bent = table.bundle("bent.bundle");
    bent["manifests"] = drift["manifests"].clone();
    let mut targets = bent["documents"][0]["before"]["targets"].clone();
    for name in ["acme-gateway-2.1.0.manifest.json", "acme-gateway-2.1.0.payload"] {
        targets[name] = drift["documents"][0]["signed"]["targets"][name].clone();
    }
    bent["documents"][0]["signed"]["targets"] = targets;
    fs::write(table.path("bent.bundle"), bent.to_string()).unwrap();
    table.sign("bent.bundle", &["anna", "ben"]);
    table.refused(73, "with other content", &["publish", "bent.bundle", "--repository", "repository"]);

    let stands = fs::read(table.path("repository/files/acme-gateway-2.1.0.mpatch")).unwrap();
    assert!(
        stands == published && !table.path("repository/metadata/3.acme-gateway-offline.json").exists(),
        "nothing was written"
    );
}
