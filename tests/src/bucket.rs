//! An S3 server of its own (s3s, on a folder), which checks signatures as Amazon's does.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

pub const ACCESS_KEY: &str = "understudy-tests";
pub const SECRET_KEY: &str = "a secret key of the bucket";

/// A server with one bucket, `mail`.
pub struct Bucket {
    address: SocketAddr,
    temp: TempDir,
    _end: DropGuard,
}

impl Bucket {
    pub async fn start() -> Result<Self> {
        let temp = crate::temp_dir("us-bucket-")?;
        std::fs::create_dir(temp.path().join("mail"))?;
        let files = s3s_fs::FileSystem::new(temp.path()).map_err(|error| anyhow::anyhow!("{error:?}"))?;
        let mut service = S3ServiceBuilder::new(files);
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let service = service.build();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let end = CancellationToken::new();
        let ended = end.clone();
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    () = ended.cancelled() => return,
                    accepted = listener.accept() => accepted,
                };
                let Ok((stream, _)) = accepted else { continue };
                let (service, ended) = (service.clone(), ended.clone());
                tokio::spawn(async move {
                    let server = Builder::new(TokioExecutor::new());
                    tokio::select! {
                        () = ended.cancelled() => {}
                        _ = server.serve_connection(TokioIo::new(stream), service) => {}
                    }
                });
            }
        });
        Ok(Self { address, temp, _end: end.drop_guard() })
    }

    /// The lines of `[content]` that lead there; the secret is written to a file in `dir`.
    pub fn config(&self, dir: &Path) -> Result<String> {
        let secret = dir.join("bucket.secret");
        std::fs::write(&secret, SECRET_KEY)?;
        Ok(format!(
            "store = \"s3://mail/dr\"\nendpoint = \"http://{}\"\nregion = \"us-east-1\"\naccess_key = \"{ACCESS_KEY}\"\n\
             secret_key_file = \"{}\"",
            self.address,
            secret.display()
        ))
    }

    /// The files in which the server keeps the objects.
    pub fn objects(&self) -> Result<Vec<PathBuf>> {
        let folder = self.temp.path().join("mail/dr");
        if !folder.exists() {
            return Ok(Vec::new());
        }
        let mut objects = Vec::new();
        for entry in std::fs::read_dir(folder).context("the bucket cannot be listed")? {
            let path = entry?.path();
            if path.extension().is_some_and(|end| end == "object") {
                objects.push(path);
            }
        }
        Ok(objects)
    }
}
