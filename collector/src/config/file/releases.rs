//! `[releases]`: a folder, or a bucket of an S3-compatible store. The secret key is never here: it stands in a file of its own (R33).

use std::path::PathBuf;

use reqwest::Url;
use serde::Deserialize;

use super::{BucketConfig, Checks, ReleasesConfig, ReleasesFrom, is_loopback};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawReleases {
    dir: Option<PathBuf>,
    bucket: Option<String>,
    endpoint: Option<String>,
    region: Option<String>,
    prefix: Option<String>,
    access_key_id: Option<String>,
    secret_key_file: Option<PathBuf>,
    root: Option<PathBuf>,
}

impl Checks<'_> {
    pub(super) fn releases(&mut self, raw: RawReleases) -> ReleasesConfig {
        let paths =
            [("releases.dir", &raw.dir), ("releases.root", &raw.root), ("releases.secret_key_file", &raw.secret_key_file)];
        for (key, path) in paths {
            if let Some(path) = path.as_ref().filter(|path| !path.is_absolute()) {
                self.fault(key, &path.display().to_string(), "an absolute path");
            }
        }
        let root = raw.root.clone();
        let from = match (raw.dir.clone(), raw.bucket.clone()) {
            (Some(dir), None) => {
                let of_bucket = [&raw.endpoint, &raw.region, &raw.prefix, &raw.access_key_id];
                if of_bucket.into_iter().any(Option::is_some) || raw.secret_key_file.is_some() {
                    self.fault("releases.dir", &dir.display().to_string(), "no keys of a bucket beside it");
                }
                ReleasesFrom::Dir(dir)
            }
            (None, Some(name)) => ReleasesFrom::Bucket(self.bucket(name, raw)),
            (dir, bucket) => {
                let both = dir.is_some() && bucket.is_some();
                self.fault("releases.dir, releases.bucket", if both { "both" } else { "neither" }, "one of the two");
                ReleasesFrom::Dir(dir.unwrap_or_default())
            }
        };
        ReleasesConfig { from, root }
    }

    fn bucket(&mut self, bucket: String, raw: RawReleases) -> BucketConfig {
        let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
        if !(3..=63).contains(&bucket.len()) || !plain(&bucket) || bucket.starts_with('.') {
            self.fault("releases.bucket", &bucket, "a bucket's name: 3 to 63 letters, digits, \"-\", \".\"");
        }
        let region = raw.region.unwrap_or_else(|| "us-east-1".to_owned());
        if region.is_empty() || !plain(&region) {
            self.fault("releases.region", &region, "a region such as \"cn-north-1\"");
        }
        let mut prefix = raw.prefix.unwrap_or_default();
        let is_name = |part: &str| !part.is_empty() && plain(part) && !part.starts_with('.');
        if !prefix.is_empty() && !prefix.trim_end_matches('/').split('/').all(is_name) {
            self.fault("releases.prefix", &prefix, "names such as \"mainstay/releases\"");
        }
        if !prefix.is_empty() && !prefix.ends_with('/') {
            prefix.push('/');
        }
        let access_key_id = raw.access_key_id.unwrap_or_default();
        if access_key_id.is_empty() || access_key_id.contains(|c: char| !c.is_ascii_graphic()) {
            self.fault("releases.access_key_id", &access_key_id, "the id of a key that may list and read the bucket");
        }
        let secret_key_file = raw.secret_key_file.unwrap_or_else(|| {
            self.fault("releases.secret_key_file", "", "a file with the secret key on its first line");
            PathBuf::new()
        });
        let endpoint = self.endpoint(raw.endpoint.as_deref().unwrap_or_default());
        BucketConfig { endpoint, bucket, region, prefix, access_key_id, secret_key_file }
    }

    fn endpoint(&mut self, text: &str) -> String {
        let url = Url::parse(text).ok().filter(|url| {
            let is_safe = url.scheme() == "https" || (url.scheme() == "http" && url.host_str().is_some_and(is_loopback));
            is_safe && url.has_host() && url.username().is_empty() && url.password().is_none() && url.query().is_none()
        });
        if url.is_none() {
            let accepted = "the store's https:// address without a key in it (http:// for a loopback address only)";
            // The address may carry a key: it is not repeated.
            self.faults.push(format!("{}: releases.endpoint: expected {accepted}", self.file));
        }
        text.to_owned()
    }
}
