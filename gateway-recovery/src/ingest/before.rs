//! What source gateways and we have both seen lately: the next shipments build on it.
//!
//! Keeps true: bounded memory. What is forgotten, by age or by a restart, costs a small shipment sent twice.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use understudy_content::Seen;

use super::arriving::Find;

/// So many are kept, half a mebibyte each: more than shipments are under way at once.
const KEPT: usize = 24;

/// What was seen with the last shipments. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Before(Arc<Mutex<VecDeque<Seen>>>);

impl Before {
    pub(super) fn add(&self, seen: Option<Seen>) {
        let Some(seen) = seen.filter(|seen| seen.size() > 0) else { return };
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|other| other.name() != seen.name());
        kept.push_front(seen);
        kept.truncate(KEPT);
    }

    pub(super) fn finder(&self) -> Find {
        let kept = self.0.clone();
        Box::new(move |name| {
            let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.iter().find(|seen| seen.name() == *name).cloned()
        })
    }
}
