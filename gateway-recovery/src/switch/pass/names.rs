//! What folders are called on both sides, and which names are subscribed.
//!
//! In: what both sides list, and what they had in common. Out: IMAP commands, the mirror's subscriptions. Keeps true: folders that lie
//! below another go where it goes, and what has the wanted name by chance only steps aside.
//! Not here: which folders are one and the same (`tree`), what is in them (`pass`).

use std::collections::{BTreeMap, BTreeSet};

use understudy_database::mirror::{self, Effects};
use understudy_imap_session::{Error, FolderName};
use understudy_protocol::{FolderId, FolderPath};
use understudy_replication::folders::rebase;

use super::{
    super::{
        merge::Scope,
        sides::{Listed, Sides},
        tree::{self, Place},
    },
    Passes, Report,
};
use crate::standby::Standby;

impl Passes {
    /// Gives folders the same names on both sides. Answers whether anything was renamed.
    pub(super) async fn rename(&self, sides: &mut Sides, listed: &Listed, report: &mut Report) -> anyhow::Result<bool> {
        let mut renamed = false;
        let home = self.scope == Scope::Home;
        for (side, on, may) in
            [(&mut sides.primary, on_primary as On, home), (&mut sides.standby, on_standby as On, true)]
        {
            if !may {
                // What only the standby renamed waits for the way home.
                continue;
            }
            let renames = tree::renames(&listed.places, on);
            report.folders_changed += renames.len() as u64;
            if renames.is_empty() || self.dry {
                continue;
            }
            renamed = true;
            side.close().await?;
            rename_all(side, &listed.places, on, &renames).await?;
        }
        Ok(renamed)
    }

    pub(super) async fn subscriptions(
        &self,
        sides: &mut Sides,
        listed: &Listed,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let set = |paths: &[FolderPath]| -> BTreeSet<FolderPath> { paths.iter().cloned().collect() };
        let base = set(&mirror::subscriptions(&self.depot.pool, self.mailbox).await?);
        let (primary, standby) = (set(&listed.primary.subscriptions), set(&listed.standby.subscriptions));
        let mut effects = Effects::default();
        for path in base.iter().chain(&primary).chain(&standby).collect::<BTreeSet<_>>() {
            let (before, p, s) = (base.contains(path), primary.contains(path), standby.contains(path));
            let wanted = if p == before { s } else { p };
            let agreed = if self.scope == Scope::Home { wanted } else { p };
            let mut taken = true;
            let home = self.scope == Scope::Home;
            for (side, now, may, alone) in [(&mut sides.primary, p, home, true), (&mut sides.standby, s, true, false)] {
                if now == wanted || !may {
                    continue;
                }
                if self.dry {
                    report.subscriptions_changed += 1;
                    continue;
                }
                let name = side.session().name_for(path);
                let done = match wanted {
                    true => side.session().subscribe(&name).await,
                    false => side.session().unsubscribe(&name).await,
                };
                match done {
                    Ok(()) => report.subscriptions_changed += 1,
                    // Not where the user works: what we make and delete there may be wanted meanwhile.
                    Err(Error::Refused { .. }) if wanted && alone && !is_folder(listed, path) => {
                        subscribe_to_nothing(side, &name).await?;
                    }
                    Err(Error::Refused { .. }) => taken = false,
                    Err(error) => return Err(error.into()),
                }
            }
            if taken && agreed != before && !self.dry {
                effects.subscriptions.push((path.clone(), agreed));
            }
        }
        if effects.subscriptions.is_empty() { Ok(()) } else { self.record(&effects).await }
    }
}

fn is_folder(listed: &Listed, path: &FolderPath) -> bool {
    listed.places.iter().any(|place| place.primary.as_ref() == Some(path) || place.standby.as_ref() == Some(path))
}

/// A subscription outlives its folder, but some servers take none to a name without one: so there is one for a moment.
async fn subscribe_to_nothing(side: &mut Standby, name: &FolderName) -> Result<(), Error> {
    let may_be_refused = |done: Result<(), Error>| match done {
        Ok(()) | Err(Error::Refused { .. }) => Ok(()),
        Err(error) => Err(error),
    };
    may_be_refused(side.session().create(name, &[]).await)?;
    may_be_refused(side.session().subscribe(name).await)?;
    side.close().await?;
    let is_empty = side.session().status(name).await?.is_some_and(|status| status.messages == 0);
    if is_empty { may_be_refused(side.session().delete(name).await) } else { Ok(()) }
}

/// What a folder is called on one side.
type On = fn(&Place) -> Option<&FolderPath>;

fn on_primary(place: &Place) -> Option<&FolderPath> {
    place.primary.as_ref()
}

fn on_standby(place: &Place) -> Option<&FolderPath> {
    place.standby.as_ref()
}

/// Renames folders of one side, keeping track of those that move along.
async fn rename_all(
    side: &mut Standby,
    places: &[Place],
    on: On,
    renames: &[(FolderId, FolderPath)],
) -> Result<(), Error> {
    let mut tree: BTreeMap<FolderId, FolderPath> =
        places.iter().filter_map(|place| Some((place.folder, on(place)?.clone()))).collect();
    for (folder, to) in renames {
        let Some(from) = tree.get(folder).cloned() else { continue };
        let (old, new) = (side.session().name_for(&from), side.session().name_for(to));
        match side.session().rename(&old, &new).await {
            Ok(()) => rebase(&mut tree, &from, to),
            // A level that only holds other folders has the name: these step aside, and come back below the new folder.
            Err(Error::Refused { .. }) if !tree.values().any(|path| path == to) => {
                let below = step_aside(side, &mut tree, to).await?;
                side.session().rename(&old, &new).await?;
                rebase(&mut tree, &from, to);
                for (folder, path) in below {
                    let (old, new) = (side.session().name_for(&tree::aside(folder)), side.session().name_for(&path));
                    side.session().rename(&old, &new).await?;
                    rebase(&mut tree, &tree::aside(folder), &path);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Renames what lies below a level out of the way, and takes the level away. Answers where each folder was.
async fn step_aside(
    side: &mut Standby,
    tree: &mut BTreeMap<FolderId, FolderPath>,
    level: &FolderPath,
) -> Result<Vec<(FolderId, FolderPath)>, Error> {
    let mut moved = Vec::new();
    while let Some((folder, path)) = tree
        .iter()
        .filter(|(_, path)| path.is_below(level))
        .min_by_key(|(_, path)| path.depth())
        .map(|(folder, path)| (*folder, path.clone()))
    {
        let aside = tree::aside(folder);
        let (old, new) = (side.session().name_for(&path), side.session().name_for(&aside));
        side.session().rename(&old, &new).await?;
        rebase(tree, &path, &aside);
        moved.push((folder, path));
    }
    let name = side.session().name_for(level);
    match side.session().delete(&name).await {
        Ok(()) | Err(Error::Refused { .. }) => Ok(moved),
        Err(error) => Err(error),
    }
}
