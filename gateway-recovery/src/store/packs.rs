//! Where packs lie: files of a folder that grow, or objects of a bucket, written once.
//!
//! Keeps true: what was finished here is durable. A pack's name says where it lies, so that both may be in use while one replaces the other.
//! Not here: which content lies where (`database::content`), sealing.

use std::{
    collections::HashSet,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::{
    ClientOptions, ObjectStore, ObjectStoreExt, PutPayload, aws::AmazonS3Builder, path::Path as ObjectPath,
};
use secrecy::{ExposeSecret, SecretString};
use understudy_replication::pack::{self, PackWriter};
use uuid::Uuid;

/// The end of the name of a pack that is a file, …
const FILE: &str = ".pack";
/// … and of one that is an object.
const OBJECT: &str = ".object";
/// Objects up to this size go out in one request, larger ones in parts of it, in bytes.
const PART_BYTES: usize = 8 << 20;

/// An S3 bucket, or what speaks the same.
#[derive(Clone, Debug)]
pub struct BucketConfig {
    pub bucket: String,
    /// Before every object's name.
    pub prefix: String,
    /// Where the service is, if it is not Amazon's.
    pub endpoint: Option<String>,
    pub region: Option<String>,
    pub access_key: Option<String>,
    pub secret_key: Option<SecretString>,
}

/// All packs.
#[derive(Debug)]
pub(crate) struct Packs {
    folder: Box<Path>,
    bucket: Option<Bucket>,
    /// Names that are being written to, or were written and are not in the index yet.
    in_use: Mutex<HashSet<String>>,
}

#[derive(Debug)]
struct Bucket {
    store: Arc<dyn ObjectStore>,
    prefix: ObjectPath,
    /// Objects wait here until they are whole.
    staging: PathBuf,
}

/// A pack as it lies there.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) changed_at: SystemTime,
}

/// A pack to read from.
#[derive(Clone, Debug)]
pub(crate) enum OpenPack {
    File(Arc<File>),
    Object(Arc<dyn ObjectStore>, ObjectPath),
}

impl Packs {
    pub(crate) fn open(folder: &Path, bucket: Option<&BucketConfig>) -> io::Result<Self> {
        pack::create_folder(folder)?;
        let bucket = bucket.map(|config| Bucket::open(config, folder)).transpose()?;
        Ok(Self { folder: folder.into(), bucket, in_use: Mutex::default() })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Do new packs become objects?
    pub(crate) fn writes_objects(&self) -> bool {
        self.bucket.is_some()
    }

    /// A new pack to write to, and its name.
    pub(crate) fn create(&self) -> io::Result<(PackWriter, String)> {
        let (folder, end) = match &self.bucket {
            Some(bucket) => (bucket.staging.as_path(), OBJECT),
            None => (&*self.folder, FILE),
        };
        let name = format!("{}{end}", Uuid::now_v7());
        self.use_name(&name);
        match PackWriter::create(&folder.join(&name)) {
            Ok(pack) => Ok((pack, name)),
            Err(error) => {
                self.release(&name);
                Err(error)
            }
        }
    }

    /// The name of a file that becomes a pack by a link.
    pub(crate) fn file_name(&self) -> String {
        let name = format!("{}{FILE}", Uuid::now_v7());
        self.use_name(&name);
        name
    }

    fn use_name(&self, name: &str) {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
    }

    /// Nobody writes to this pack any more, and what was written is in the index.
    pub(crate) fn release(&self, name: &str) {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    pub(crate) fn is_in_use(&self, name: &str) -> bool {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner).contains(name)
    }

    /// Makes durable what was written. Answers the pack where it can be written to again.
    pub(crate) async fn finish(&self, mut pack: PackWriter, name: &str) -> io::Result<Option<PackWriter>> {
        let Some(bucket) = &self.bucket else {
            let synced = tokio::task::spawn_blocking(move || pack.sync().map(|()| pack)).await;
            return synced.map_err(io::Error::other)?.map(Some);
        };
        bucket.upload(&mut pack, name).await?;
        // Its local copy was only on the way.
        let _ = fs::remove_file(pack.path());
        Ok(None)
    }

    pub(crate) fn open_pack(&self, name: &str) -> io::Result<OpenPack> {
        if name.ends_with(OBJECT) {
            let bucket = self.bucket.as_ref().ok_or_else(|| {
                io::Error::new(io::ErrorKind::NotFound, "the pack lies in a bucket, and none is configured")
            })?;
            return Ok(OpenPack::Object(bucket.store.clone(), bucket.prefix.clone().join(name)));
        }
        File::open(self.folder.join(name)).map(|file| OpenPack::File(Arc::new(file)))
    }

    /// Does the pack lie where new ones do not?
    pub(crate) fn is_elsewhere(&self, name: &str) -> bool {
        name.ends_with(FILE) == self.bucket.is_some()
    }

    /// Every pack there is.
    pub(crate) async fn list(&self) -> io::Result<Vec<Listed>> {
        let mut listed = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let Some(name) = entry.file_name().to_str().filter(|name| name.ends_with(FILE)).map(str::to_owned) else {
                continue;
            };
            let metadata = entry.metadata()?;
            listed.push(Listed { name, size: metadata.len(), changed_at: metadata.modified()? });
        }
        if let Some(bucket) = &self.bucket {
            let mut objects = bucket.store.list(Some(&bucket.prefix));
            while let Some(object) = objects.try_next().await.map_err(remote)? {
                let Some(name) = object.location.filename().filter(|name| name.ends_with(OBJECT)) else { continue };
                let changed_at = SystemTime::from(object.last_modified);
                listed.push(Listed { name: name.to_owned(), size: object.size, changed_at });
            }
        }
        Ok(listed)
    }

    pub(crate) async fn remove(&self, name: &str) -> io::Result<()> {
        match &self.bucket {
            Some(bucket) if name.ends_with(OBJECT) => {
                bucket.store.delete(&bucket.prefix.clone().join(name)).await.map_err(remote)
            }
            _ => fs::remove_file(self.folder.join(name)),
        }
    }
}

impl Bucket {
    fn open(config: &BucketConfig, folder: &Path) -> io::Result<Self> {
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(&config.bucket)
            .with_client_options(ClientOptions::new().with_allow_http(true));
        if let Some(endpoint) = &config.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if let Some(region) = &config.region {
            builder = builder.with_region(region);
        }
        if let Some(key) = &config.access_key {
            builder = builder.with_access_key_id(key);
        }
        if let Some(key) = &config.secret_key {
            builder = builder.with_secret_access_key(key.expose_secret());
        }
        let store = builder.build().map_err(remote)?;
        let staging = folder.join("staging");
        pack::create_folder(&staging)?;
        // What a former life did not finish was never acknowledged.
        for entry in fs::read_dir(&staging)? {
            fs::remove_file(entry?.path())?;
        }
        let prefix = ObjectPath::parse(&config.prefix).map_err(io::Error::other)?;
        Ok(Self { store: Arc::new(store), prefix, staging })
    }

    async fn upload(&self, pack: &mut PackWriter, name: &str) -> io::Result<()> {
        let to = self.prefix.clone().join(name);
        let size = pack.offset();
        pack.flush()?;
        let file = Arc::new(File::open(pack.path())?);
        let piece = |from: u64| {
            let file = file.clone();
            let length = usize::try_from(size - from).unwrap_or(PART_BYTES).min(PART_BYTES);
            async move {
                let read = tokio::task::spawn_blocking(move || read_exactly(&file, from, length)).await;
                read.map_err(io::Error::other)?
            }
        };
        if size <= PART_BYTES as u64 {
            let all = piece(0).await?;
            self.store.put(&to, PutPayload::from_bytes(all)).await.map_err(remote)?;
            return Ok(());
        }
        let mut parts = self.store.put_multipart(&to).await.map_err(remote)?;
        let mut sent = 0;
        while sent < size {
            let part = piece(sent).await?;
            sent += part.len() as u64;
            if let Err(error) = parts.put_part(PutPayload::from_bytes(part)).await {
                let _ = parts.abort().await;
                return Err(remote(error));
            }
        }
        parts.complete().await.map(drop).map_err(remote)
    }
}

impl OpenPack {
    /// Exactly these bytes.
    pub(crate) async fn range(&self, from: u64, length: usize) -> io::Result<Bytes> {
        match self {
            Self::File(file) => read_exactly(file, from, length),
            Self::Object(store, path) => {
                let bytes = store.get_range(path, from..from + length as u64).await.map_err(remote)?;
                if bytes.len() == length { Ok(bytes) } else { Err(too_short()) }
            }
        }
    }

    pub(crate) fn is_file(&self) -> bool {
        matches!(self, Self::File(_))
    }
}

fn read_exactly(file: &File, from: u64, length: usize) -> io::Result<Bytes> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match pack::read_at(file, from + filled as u64, &mut bytes[filled..])? {
            0 => return Err(too_short()),
            read => filled += read,
        }
    }
    Ok(bytes.into())
}

fn too_short() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "a pack is shorter than the index says")
}

/// An error of the bucket; one that says that there is no room is known as such.
fn remote(error: object_store::Error) -> io::Error {
    let text = error.to_string();
    let full =
        ["XMinioStorageFull", "QuotaExceeded", "507 Insufficient Storage"].iter().any(|word| text.contains(word));
    let kind = match error {
        _ if full => io::ErrorKind::StorageFull,
        object_store::Error::NotFound { .. } => io::ErrorKind::NotFound,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}
