//! Named places at which a test can stop the program: every step between a hint and a completed transaction.
//!
//! In: the folder that `UNDERSTUDY_FAILPOINTS` names, read at every passing. Out: an abort, or a pause.
//! Keeps true: release builds hold nothing of it; a debug build without the variable does nothing; one arming is reached once,
//! by one thread.
//! Not here: what a test does about it (`understudy_tests::failpoint`).
//!
//! A test writes `armed` into the folder: `NAME TIMES ACTION`. At the `TIMES`th passing of `NAME` the file becomes `reached`; then
//! `abort` ends the process on the spot, and `pause` waits until somebody removes `reached`.

/// Every place, in the order in which a change passes it. The tests visit each of them.
pub const ALL: &[&str] = &[
    // The source gateway: waking and looking.
    "look.hinted",
    "look.listed",
    "look.done",
    // Capturing.
    "capture.spooled",
    "capture.written",
    "capture.committed",
    "capture.moved_on",
    "capture.seeded",
    // Shipping.
    "ship.ready",
    "ship.amid",
    "ship.answered",
    "drop.committed",
    "drop.removed",
    // The recovery gateway: taking in.
    "ingest.amid",
    "ingest.whole",
    "ingest.synced",
    "ingest.written",
    "ingest.committed",
    "ack.ready",
    "report.taken",
    // Applying.
    "apply.taken",
    "apply.intended",
    "append.ready",
    "append.done",
    "append.padded",
    "append.mended",
    "store.ready",
    "store.flagged",
    "store.expunged",
    "folder.created",
    "folder.renamed",
    "folder.noted",
    "folder.lent",
    "folder.subscribed",
    "folder.deleted",
    "complete.written",
    "complete.committed",
    // After a crash.
    "strays.found",
    "strays.recorded",
    "strays.adopted",
    // Where the source's journal was lost.
    "rebuild.forgotten",
    "rebuild.committed",
];

/// The places of a change of side: behind each of its steps, and between the change of the route and its commit.
pub const SWITCH: &[&str] = &[
    "switch.checked",
    "switch.passed",
    "switch.held",
    "switch.cut",
    "switch.drained",
    "switch.brought",
    "switch.verified",
    "switch.flipping",
    "switch.flipped",
    "switch.released",
];

/// The places of UID continuity: numbers raised, and a folder rebuilt, swapped and noted.
pub const UIDS: &[&str] =
    &["uids.raised", "uids.built", "uids.swapping", "uids.aside", "uids.renamed", "uids.replaced", "uids.committed"];

/// The places of a canary: noted and not written, written and not noted.
pub const CANARY: &[&str] = &["canary.begun", "canary.appended"];

/// The places of bringing two sides together: both are read and nothing is written; what came late is given and not taken over.
pub const MERGE: &[&str] = &["merge.read", "late.appended"];

/// The places of making good: a repair that a person asked for, removals that one released, messages tried again that the standby had
/// refused.
pub const MENDING: &[&str] = &[
    "repair.taken",
    "repair.intended",
    "repair.appended",
    "repair.written",
    "repair.committed",
    "repair.removed",
    "release.taken",
    "release.expunged",
    "release.noted",
    "release.deleted",
    "release.unsubscribed",
    "release.written",
    "release.committed",
    "refused.intended",
    "refused.appended",
    "refused.written",
    "refused.committed",
];

/// The folder a test arms failpoints in.
pub const VARIABLE: &str = "UNDERSTUDY_FAILPOINTS";

/// The file that a test writes: name, at which passing, and `abort` or `pause`.
pub const ARMED: &str = "armed";

/// What it becomes when the place is reached.
pub const REACHED: &str = "reached";

/// A place where a test may stop the program.
#[inline]
pub fn here(name: &'static str) {
    #[cfg(debug_assertions)]
    armed::pass(name);
    #[cfg(not(debug_assertions))]
    let _ = name;
}

#[cfg(debug_assertions)]
mod armed {
    use std::{
        env, fs,
        io::Write as _,
        path::{Path, PathBuf},
        sync::{Mutex, OnceLock, PoisonError},
        thread,
        time::Duration,
    };

    use tokio::{
        runtime::{Handle, RuntimeFlavor},
        task::block_in_place,
    };

    /// How often a paused place looks whether it may go on.
    const PAUSE: Duration = Duration::from_millis(2);

    /// How often the armed place was passed, for this text of `armed`.
    static PASSED: Mutex<(String, u32)> = Mutex::new((String::new(), 0));

    fn folder() -> Option<&'static Path> {
        static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
        FOLDER.get_or_init(|| env::var_os(super::VARIABLE).map(PathBuf::from)).as_deref()
    }

    pub(super) fn pass(name: &str) {
        if let Some(folder) = folder()
            && let Some(action) = reach(folder, name)
        {
            let _ = writeln!(std::io::stderr(), "failpoint {name}: {action}");
            if action == "abort" {
                std::process::abort();
            }
            let wait = || {
                while folder.join(super::REACHED).exists() {
                    thread::sleep(PAUSE);
                }
            };
            // Whatever else this worker thread was to run goes on elsewhere.
            match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
                Ok(RuntimeFlavor::MultiThread) => block_in_place(wait),
                _ => wait(),
            }
        }
    }

    /// The action, when this passing is the one.
    fn reach(folder: &Path, name: &str) -> Option<String> {
        let file = folder.join(super::ARMED);
        let text = fs::read_to_string(&file).ok()?;
        let mut words = text.split_whitespace();
        if words.next() != Some(name) {
            return None;
        }
        let (times, action) = (words.next()?.parse().ok()?, words.next()?.to_owned());
        let mut passed = PASSED.lock().unwrap_or_else(PoisonError::into_inner);
        if passed.0 != text {
            *passed = (text.clone(), 0);
        }
        passed.1 += 1;
        if passed.1 < times {
            return None;
        }
        passed.1 = 0;
        fs::rename(&file, folder.join(super::REACHED)).ok()?;
        Some(action)
    }
}
