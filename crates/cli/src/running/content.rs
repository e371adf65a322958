//! What the content store needs from files: master keys and the secret of a bucket.

use std::{fs, path::Path};

use secrecy::SecretString;
use understudy_gateway_recovery::{BucketConfig, ContentConfig, MasterKeys};

use super::first_line;
use crate::{
    config::{Config, SecretKey},
    failure::{Failure, Result},
};

/// The content store as configured; reads the files with secrets.
pub(crate) fn content_config(config: &Config) -> Result<ContentConfig> {
    let content = &config.content;
    let bucket = content.bucket.as_ref().map(|bucket| {
        let secret_key = match &bucket.secret_key {
            SecretKey::Environment => None,
            SecretKey::Given(key) => Some(key.clone()),
            SecretKey::File(path) => Some(SecretString::from(first_line(path, "the secret key of the bucket")?)),
        };
        Ok::<_, Failure>(BucketConfig {
            bucket: bucket.name.clone(),
            prefix: bucket.prefix.clone(),
            endpoint: bucket.endpoint.clone(),
            region: bucket.region.clone(),
            access_key: bucket.access_key.clone(),
            secret_key,
        })
    });
    Ok(ContentConfig {
        folder: config.data_dir.join("content"),
        bucket: bucket.transpose()?,
        keys: content.key_file.as_deref().map(|path| master_keys(path, &config.data_dir)).transpose()?,
        keep: content.keep,
        sweep_every: content.sweep_every,
        scrub_every: content.scrub_every,
        scrub_rate: content.scrub_rate,
    })
}

fn master_keys(path: &Path, data_dir: &Path) -> Result<MasterKeys> {
    let failure = |why: String, remedy: &str| {
        Failure::usage("the content store cannot be unlocked", format!("{}: {why}", path.display()), remedy)
    };
    let text = SecretString::from(fs::read_to_string(path).map_err(|error| {
        failure(error.to_string(), "name a file that this user can read, as `key_file` under [content]")
    })?);
    if path.starts_with(data_dir) {
        tracing::warn!(
            "The key of the content store lies beside what it seals; whoever copies the folder has both. Keep it elsewhere"
        );
    }
    MasterKeys::parse(secrecy::ExposeSecret::expose_secret(&text)).map_err(|error| {
        failure(
            error.to_string(),
            "write one key a line, 64 hexadecimal digits each, the newest first: `od -An -N32 -tx1 /dev/urandom | tr -d ' \\n'`",
        )
    })
}
