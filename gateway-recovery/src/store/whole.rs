//! Messages that rest as a skeleton, put together with their parts.
//!
//! Keeps true: memory is bounded whatever the size; a message is taken in only when what rests of it makes exactly its octets.

use std::{
    collections::{HashMap, HashSet},
    io,
};

use understudy_content::{Layout, MAX_RECIPE_BYTES, Recipe, Source};
use understudy_database::content::{self, Form, Place};
use understudy_protocol::{Digest, TenantId};

use super::{
    Store,
    reading::{Missing, Pieces},
};

/// Read at once while a message is compared with its digest, in bytes.
const PIECE_BYTES: usize = 256 << 10;

/// How one message is put together.
pub(super) struct Whole {
    layout: Layout,
    skeleton: usize,
    /// Where its own octets begin in the skeleton.
    own_at: u64,
    parts: Vec<usize>,
}

impl Whole {
    /// Some octets of the message from `offset` on, at least one unless it ends there.
    pub(super) async fn read(&self, pieces: &mut Pieces, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(need) = self.layout.need(offset, buffer.len()) else { return Ok(0) };
        let (index, start) = match need.source {
            Source::Own => (self.skeleton, self.own_at + need.start),
            Source::Part(number) => (self.parts.get(number).copied().unwrap_or(usize::MAX), need.start),
        };
        let mut stored = vec![0; need.length];
        exact(pieces, index, start, &mut stored).await?;
        need.render(&stored, buffer).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }
}

impl Store {
    /// Says of each of these contents that rests as a skeleton how it is put together, and adds the parts. `fresh`: places that are not
    /// in the index yet.
    pub(super) async fn wholes(
        &self,
        tenant: TenantId,
        pieces: &mut Pieces,
        fresh: &HashMap<Digest, Place>,
    ) -> anyhow::Result<Vec<Option<Whole>>> {
        let places: Vec<Place> = pieces.places().cloned().collect();
        if places.iter().all(|place| place.form != Form::Skeleton) {
            return Ok(places.iter().map(|_| None).collect());
        }
        let mut recipes = Vec::with_capacity(places.len());
        for (index, place) in places.iter().enumerate() {
            recipes.push(match place.form {
                Form::Skeleton => Some(recipe(pieces, index, place).await?),
                _ => None,
            });
        }
        let mut wanted = HashSet::new();
        for (recipe, _) in recipes.iter().flatten() {
            wanted.extend(recipe.parts().into_iter().map(|part| part.digest));
        }
        wanted.retain(|part| !fresh.contains_key(part));
        let wanted: Vec<Digest> = wanted.into_iter().collect();
        let known = content::places(&self.shared.pool, tenant, &wanted).await?;
        let mut numbers: HashMap<Digest, usize> = HashMap::new();
        let mut wholes = Vec::with_capacity(places.len());
        for (index, (recipe, place)) in recipes.into_iter().zip(&places).enumerate() {
            let Some((recipe, own_at)) = recipe else {
                wholes.push(None);
                continue;
            };
            let layout = Layout::new(&recipe);
            let mut parts = Vec::with_capacity(layout.parts().len());
            for part in layout.parts() {
                let number = match numbers.get(&part.digest) {
                    Some(number) => *number,
                    None => {
                        let found = fresh.get(&part.digest).or_else(|| known.get(&part.digest));
                        // Whoever repairs knows messages.
                        let found = found.filter(|found| found.content.size == part.size);
                        let found = found.ok_or_else(|| anyhow::anyhow!(Missing(place.content.digest)))?;
                        let number = pieces.append(self.pieces(tenant, vec![found.clone()]).await?);
                        numbers.insert(part.digest, number);
                        number
                    }
                };
                parts.push(number);
            }
            wholes.push(Some(Whole { layout, skeleton: index, own_at, parts }));
        }
        Ok(wholes)
    }

    /// Compares skeletons that have just come with the digests of their messages. Answers, of each that lacks parts, which. A message that
    /// is another one is `InvalidData`.
    pub(crate) async fn prove(
        &self,
        tenant: TenantId,
        arrived: &[Place],
        recipes: &HashMap<Digest, Recipe>,
    ) -> anyhow::Result<HashMap<Digest, Vec<Digest>>> {
        if recipes.is_empty() {
            return Ok(HashMap::new());
        }
        let fresh: HashMap<Digest, Place> = arrived
            .iter()
            .filter(|place| place.form == Form::Part)
            .map(|place| (place.content.digest, place.clone()))
            .collect();
        let elsewhere: HashSet<Digest> = recipes
            .values()
            .flat_map(Recipe::parts)
            .map(|part| part.digest)
            .filter(|part| !fresh.contains_key(part))
            .collect();
        let elsewhere: Vec<Digest> = elsewhere.into_iter().collect();
        let known = content::places(&self.shared.pool, tenant, &elsewhere).await?;
        let mut lacking = HashMap::new();
        let mut buffer = vec![0; PIECE_BYTES];
        for place in arrived.iter().filter(|place| place.form == Form::Skeleton) {
            let message = place.content;
            let parts = recipes.get(&message.digest).map(Recipe::parts).unwrap_or_default();
            let lacks: Vec<Digest> = parts
                .iter()
                .map(|part| part.digest)
                .filter(|part| !fresh.contains_key(part) && !known.contains_key(part))
                .collect();
            if !lacks.is_empty() {
                lacking.insert(message.digest, lacks);
                continue;
            }
            let mut pieces = self.pieces(tenant, vec![place.clone()]).await?;
            let wholes = self.wholes(tenant, &mut pieces, &fresh).await?;
            let Some(Some(whole)) = wholes.first() else { continue };
            let mut hasher = blake3::Hasher::new();
            let mut offset = 0;
            while offset < message.size {
                let read = whole.read(&mut pieces, offset, &mut buffer).await?;
                if read == 0 {
                    break;
                }
                hasher.update(&buffer[..read]);
                offset += read as u64;
                tokio::task::consume_budget().await;
            }
            if offset != message.size || Digest::from(hasher.finalize()) != message.digest {
                let other = "a skeleton and its parts make another message than the one they came for";
                return Err(io::Error::new(io::ErrorKind::InvalidData, other).into());
            }
        }
        Ok(lacking)
    }
}

/// A skeleton's recipe, and where the message's own octets begin.
async fn recipe(pieces: &mut Pieces, index: usize, place: &Place) -> io::Result<(Recipe, u64)> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, "a skeleton in the store cannot be read");
    let mut length = [0; 4];
    exact(pieces, index, 0, &mut length).await?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > MAX_RECIPE_BYTES {
        return Err(invalid());
    }
    let mut bytes = vec![0; length];
    exact(pieces, index, 4, &mut bytes).await?;
    let recipe = Recipe::decode(&bytes, place.content.size).map_err(|_| invalid())?;
    let own_at = 4 + length as u64;
    if place.stored != own_at + recipe.own_bytes() {
        return Err(invalid());
    }
    Ok((recipe, own_at))
}

async fn exact(pieces: &mut Pieces, index: usize, mut offset: u64, mut buffer: &mut [u8]) -> io::Result<()> {
    while !buffer.is_empty() {
        let read = pieces.bytes(index, offset, buffer).await?;
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        offset += read as u64;
        buffer = &mut buffer[read..];
    }
    Ok(())
}
