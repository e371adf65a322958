//! What one invocation was asked for, and what every measurement needs from it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::child::Folder;
use crate::peer::Peer;
use crate::understudy::find_program;

/// Shared by all measurements.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) scale: f64,
    pub(crate) rounds: usize,
    pub(crate) stores: Vec<Store>,
    pub(crate) peers: Vec<Peer>,
    program: Option<PathBuf>,
}

/// A place for mail stores and databases.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    path: PathBuf,
    pub(crate) in_memory: bool,
}

impl Settings {
    pub(crate) fn new(
        scale: f64,
        rounds: usize,
        stores: Vec<PathBuf>,
        peers: Vec<Peer>,
        program: Option<PathBuf>,
    ) -> Result<Self> {
        let program = if peers.contains(&Peer::Understudy) { Some(find_program(program)?) } else { None };
        let stores = stores.into_iter().map(Store::new).collect::<Result<_>>()?;
        Ok(Self { scale, rounds, stores, peers, program })
    }

    pub(crate) fn program(&self) -> Result<&Path> {
        self.program.as_deref().context("understudy is not among the peers of this run")
    }

    pub(crate) fn measures(&self, peer: Peer) -> bool {
        self.peers.contains(&peer)
    }

    /// Memory-backed if there is one: where the choice is ours, CPU and protocol are measured and not the disk.
    pub(crate) fn quick_store(&self) -> &Store {
        self.stores.iter().find(|store| store.in_memory).unwrap_or(&self.stores[0])
    }

    /// At least `least`, so that a smoke run still measures something.
    pub(crate) fn scaled(&self, full: u32, least: u32) -> u32 {
        ((f64::from(full) * self.scale) as u32).max(least)
    }
}

impl Store {
    fn new(path: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&path).with_context(|| format!("could not create the store {}", path.display()))?;
        let path = path.canonicalize()?;
        let in_memory = is_in_memory(&path)?;
        Ok(Self { path, in_memory })
    }

    pub(crate) fn folder(&self, name: &str) -> Result<Folder> {
        Folder::create(&self.path, &format!("understudy-bench-{name}-"))
    }

    pub(crate) fn kind(&self) -> &'static str {
        if self.in_memory { "in memory" } else { "on disk" }
    }
}

/// The file system of the longest mount point above the path.
fn is_in_memory(path: &Path) -> Result<bool> {
    let mounts = std::fs::read_to_string("/proc/mounts")?;
    let kind = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            Some((words.next()?, words.next()?))
        })
        .filter(|(point, _)| path.starts_with(point))
        .max_by_key(|(point, _)| point.len())
        .map(|(_, kind)| kind);
    Ok(matches!(kind, Some("tmpfs" | "ramfs")))
}
