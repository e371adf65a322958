//! Messages that come as a skeleton and parts, packed.

use std::{collections::HashSet, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use understudy_content::{Packer, Piece, Recipe, Wrapping, copy, split};
use understudy_database::{
    content,
    part::{self, Acknowledged},
};
use understudy_protocol::{
    ContentRef, Digest, PartKey,
    messages::{Hello, LINK_VERSION, Lacks, Refusal, Shipment, Welcome},
};
use uuid::Uuid;

use crate::{
    damage::{break_off, cut_off},
    shipment::{Cargo, content_ref, received, refused, transaction},
    site::{Site, TENANT, until},
};

const SHIP: &str = "ship?tenant=1";

/// What hangs on the messages; it does not compress.
fn file() -> Vec<u8> {
    let mut bytes = vec![0; 40_000];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

fn message(to: &str) -> Vec<u8> {
    let mut text = format!(
        "To: {to}\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nSee there.\r\n--b\r\n\
         Content-Transfer-Encoding: base64\r\n\r\n"
    );
    for line in BASE64_STANDARD.encode(file()).as_bytes().chunks(76) {
        text.push_str(std::str::from_utf8(line).unwrap());
        text.push_str("\r\n");
    }
    text.push_str("--b--\r\n");
    text.into_bytes()
}

async fn key(site: &Site) -> PartKey {
    let told = site.told(0, "the key of parts", |told| !told.part_keys.is_empty()).await;
    told.part_keys.into_iter().find(|(tenant, _)| *tenant == TENANT).unwrap().1
}

impl Cargo {
    fn part(self, part: &[u8], key: &PartKey) -> Self {
        self.frame(&Shipment::Part(ContentRef { digest: key.digest(part), size: part.len() as u64 })).raw(part)
    }

    fn skeleton(self, message: &[u8], key: &PartKey) -> Self {
        let split = split(message, key).unwrap().expect("a message with a part");
        let frame = Shipment::Skeleton { content: content_ref(message), recipe: split.recipe.encode() };
        let mut own = Vec::new();
        for (start, end) in split.own() {
            copy(message, start, end, |piece| {
                own.extend_from_slice(piece);
                Ok(())
            })
            .unwrap();
        }
        self.frame(&frame).raw(&own)
    }

    fn packed(self) -> Vec<u8> {
        let mut packer = Packer::new(&understudy_content::Seen::default()).unwrap();
        packer.write(&self.bytes).unwrap();
        packer.finish().unwrap().0
    }
}

#[tokio::test]
async fn a_part_comes_once_for_all_mailboxes() {
    let (site, ana) = Site::with_mailbox().await;
    let bob = site.protect("bob@example.org").await;
    let key = key(&site).await;
    let (to_ana, to_bob) = (message("ana"), message("bob"));

    let first = Cargo::default().part(&file(), &key).skeleton(&to_ana, &key);
    let first = first.transaction(&transaction(ana, 1, &[&to_ana])).packed();
    // Put together and compared before it is acknowledged.
    assert_eq!(
        site.post(SHIP, first.clone()).await.expect(200).value::<understudy_protocol::messages::Shipped>().acks,
        [received(ana, 1)]
    );
    // Again: nothing more.
    site.post(SHIP, first).await.expect(200);
    let question = Lacks { tenant: TENANT, parts: vec![key.digest(&file()), Digest::of(&file())] };
    let lacks: Lacks = site.ask("lacks", &question).await.expect(200).value();
    assert_eq!(lacks.parts, [Digest::of(&file())], "nobody without the key can ask for a file");

    let second = Cargo::default().skeleton(&to_bob, &key).transaction(&transaction(bob, 1, &[&to_bob])).packed();
    assert!(second.len() < 600, "{}", second.len());
    assert_eq!(
        site.post(SHIP, second).await.expect(200).value::<understudy_protocol::messages::Shipped>().acks,
        [received(bob, 1)]
    );
    assert_eq!(site.contents_known().await, 3);
    assert_eq!(site.number("select count(*) from content_part").await, 2);
    let sql = "select deduplicated_bytes from mailbox_traffic order by mailbox_id";
    assert_eq!(site.number(sql).await, 0);
    let saved = site.number("select max(deduplicated_bytes) from mailbox_traffic").await;
    assert!(saved > 54_000, "{saved}");
    let sums = site.number(
        "select count(*) from mailbox_traffic where message_bytes = new_bytes + deduplicated_bytes + compressed_bytes",
    );
    assert_eq!(sums.await, 2);
}

#[tokio::test]
async fn a_skeleton_whose_part_is_nowhere_is_refused_by_its_name() {
    let (site, mailbox) = Site::with_mailbox().await;
    let key = key(&site).await;
    let message = message("ana");
    let cargo = Cargo::default().skeleton(&message, &key).transaction(&transaction(mailbox, 1, &[&message]));
    let shipped: understudy_protocol::messages::Shipped = site.post(SHIP, cargo.packed()).await.expect(200).value();
    let refusal = Refusal::LacksContent { digests: vec![key.digest(&file())] };
    assert_eq!(shipped.acks, [refused(mailbox, 0, refusal)]);
    assert_eq!(site.contents_known().await, 0);
}

/// A line that is cut again and again brings some parts each time.
#[tokio::test]
async fn parts_of_a_shipment_that_broke_off_need_not_come_again() {
    let (site, mailbox) = Site::with_mailbox().await;
    let key = key(&site).await;
    let parts: Vec<Vec<u8>> = (0..3)
        .map(|number| {
            let mut part = vec![0; 700 << 10];
            blake3::Hasher::new().update(&[number]).finalize_xof().fill(&mut part);
            part
        })
        .collect();
    let cut_within = |number: usize| {
        let before = parts[..number].iter().fold(Cargo::default(), |cargo, part| cargo.part(part, &key));
        let mut body = before.part(&parts[number], &key).packed();
        body.truncate(body.len() - 100_000);
        body
    };
    // Too little to be worth a hole in a pack.
    break_off(&site, SHIP, cut_within(1)).await;
    assert_eq!(site.contents_known().await, 0);

    cut_off(&site, SHIP, cut_within(2)).await;
    let digests: Vec<Digest> = parts.iter().map(|part| key.digest(part)).collect();
    let question = Lacks { tenant: TENANT, parts: digests.clone() };
    until("what came whole is there", async || {
        site.ask("lacks", &question).await.expect(200).value::<Lacks>().parts == digests[2..]
    })
    .await;
    assert_eq!(site.contents_known().await, 2);
    assert_eq!(site.received(mailbox).await.0, 0);

    let mut message = b"Subject: all of it\r\nContent-Transfer-Encoding: binary\r\n\r\n".to_vec();
    let own = message.len() as u64;
    message.extend_from_slice(&parts.concat());
    let pieces = parts
        .iter()
        .map(|part| Piece::Part(ContentRef { digest: key.digest(part), size: part.len() as u64 }, Wrapping::AsItIs));
    let recipe = Recipe { pieces: std::iter::once(Piece::Own(own)).chain(pieces).collect() };
    let skeleton = Shipment::Skeleton { content: content_ref(&message), recipe: recipe.encode() };
    let rest = Cargo::default().part(&parts[2], &key).frame(&skeleton).raw(&message[..own as usize]);
    let rest = rest.transaction(&transaction(mailbox, 1, &[&message])).packed();
    let shipped: understudy_protocol::messages::Shipped = site.post(SHIP, rest).await.expect(200).value();
    assert_eq!(shipped.acks, [received(mailbox, 1)]);
}

#[tokio::test]
async fn what_does_not_make_the_message_changes_nothing() {
    let (site, mailbox) = Site::with_mailbox().await;
    let key = key(&site).await;
    let message = message("ana");
    let one = transaction(mailbox, 1, &[&message]);
    let part = || Cargo::default().part(&file(), &key);
    let size = message.len() as u64;
    let as_it_is =
        |pieces: Vec<Piece>| Shipment::Skeleton { content: content_ref(&message), recipe: Recipe { pieces }.encode() };
    let reference = ContentRef { digest: key.digest(&file()), size: file().len() as u64 };
    let mut bomb = Cargo::default().content(&vec![b' '; 200_000]).transaction(&one).packed();
    bomb[1..5].copy_from_slice(&1000_u32.to_be_bytes());
    for (what, body) in [
        // Of the right length, with other octets.
        (
            "other octets",
            part()
                .frame(&as_it_is(vec![Piece::Part(reference, Wrapping::AsItIs), Piece::Own(size - 40_000)]))
                .raw(&vec![0; message.len() - 40_000])
                .transaction(&one)
                .packed(),
        ),
        (
            "another length",
            part()
                .frame(&as_it_is(vec![Piece::Own(size - 1)]))
                .raw(&vec![0; message.len() - 1])
                .transaction(&one)
                .packed(),
        ),
        (
            "a part under another digest",
            Cargo::default().frame(&Shipment::Part(reference)).raw(&vec![7; 40_000]).packed(),
        ),
        (
            "a part under the digest without the key",
            Cargo::default().frame(&Shipment::Part(content_ref(&file()))).raw(&file()).packed(),
        ),
        ("a bomb", bomb),
        ("a stream that ends early", part().packed()[..1000].to_vec()),
        ("a part outside of a packed shipment", part().bytes),
    ] {
        let answer = site.post(SHIP, body).await;
        assert_eq!(answer.status.as_u16(), 400, "{what}: {}", answer.text());
    }
    // A key is needed, and that is a tenant's.
    site.post("ship", part().packed()).await.expect(400);
    assert_eq!(site.received(mailbox).await.0, 0);
    assert_eq!(site.contents_known().await, 0);
}

/// Wherever a packed shipment is cut, whatever is said after its end, and in whatever order its sections come.
#[tokio::test]
async fn a_packed_shipment_that_is_not_whole_changes_nothing() {
    let (site, mailbox) = Site::with_mailbox().await;
    let key = key(&site).await;
    let message = message("ana");
    let one = transaction(mailbox, 1, &[&message]);
    // Text first, then what is compressed already: two sections, and a third.
    let mut packer = Packer::new(&understudy_content::Seen::default()).unwrap();
    let part = ContentRef { digest: key.digest(&file()), size: file().len() as u64 };
    packer.write(&Cargo::default().frame(&Shipment::Part(part)).bytes).unwrap();
    packer.write_as_is(&file()).unwrap();
    packer.write(&Cargo::default().skeleton(&message, &key).transaction(&one).bytes).unwrap();
    let whole = packer.finish().unwrap().0;
    let first = 9 + usize::from(whole[8]) + (usize::from(whole[7]) << 8);
    let second = first + 5 + file().len();

    // Every octet of the first and the last section, and some of what lies between.
    let cuts = (1..first + 20).chain((first + 20..second).step_by(4999)).chain(second..whole.len());
    for cut in cuts {
        let answer = site.post(SHIP, whole[..cut].to_vec()).await;
        let transactions = site.number("select count(*) from transaction").await;
        assert_eq!(transactions, 0, "cut at {cut} of {}", whole.len());
        // Between two sections nobody can tell; no transaction has come by then.
        let expected = if cut == first || cut == second { &[200, 400][..] } else { &[400] };
        assert!(expected.contains(&answer.status.as_u16()), "cut at {cut}: {}", answer.text());
    }
    for (what, body) in [
        ("sections in another order", [&whole[first..second], &whole[..first], &whole[second..]].concat()),
        ("a section twice", [&whole[..second], &whole[first..]].concat()),
        ("a section left out", [&whole[..first], &whole[second..]].concat()),
        ("something after the end", [&whole[..], b"more"].concat()),
        ("a section of no known kind", [&whole[..], &[9, 0, 0, 0, 0]].concat()),
    ] {
        let answer = site.post(SHIP, body).await;
        assert_eq!(answer.status.as_u16(), 400, "{what}: {}", answer.text());
        assert!(!answer.text().is_empty(), "{what}: no reason is given");
    }
    assert_eq!(site.received(mailbox).await.0, 0);
    assert_eq!(site.contents_known().await, 0);
    site.post(SHIP, whole).await.expect(200);
    assert_eq!(site.received(mailbox).await.0, 1);
}

/// A recipe of some bytes may name one part again and again: what it makes is bounded like a message that comes whole.
#[tokio::test]
async fn a_recipe_that_makes_more_than_a_shipment_holds_is_refused_by_its_size() {
    let (site, mailbox) = Site::with_mailbox().await;
    let key = key(&site).await;
    let part = ContentRef { digest: key.digest(&file()), size: file().len() as u64 };
    let many = |times: u64, name: &[u8]| {
        let pieces = (0..times).map(|_| Piece::Part(part, Wrapping::AsItIs)).collect();
        let content = ContentRef { digest: Digest::of(name), size: times * part.size };
        Shipment::Skeleton { content, recipe: Recipe { pieces }.encode() }
    };
    // Six times 800 MB.
    let cargo = (0..6_u8).fold(Cargo::default().part(&file(), &key), |cargo, name| cargo.frame(&many(20_000, &[name])));
    let answer = site.post(SHIP, cargo.packed()).await.expect(400);
    assert!(answer.text().contains("holds more than"), "{}", answer.text());
    assert_eq!(site.received(mailbox).await.0, 0);
    assert_eq!(site.contents_known().await, 0);
}

/// At the source: what was acknowledged is believed for as long as the recovery site promises to keep it, and no more of it than so much.
#[tokio::test]
async fn the_memory_of_acknowledged_parts_ends_with_the_promise_and_is_bounded() {
    let (site, _) = Site::with_mailbox().await;
    let hello = Hello {
        link_version: LINK_VERSION,
        gateway: Uuid::nil(),
        installation: Uuid::nil(),
        product_version: String::new(),
    };
    let welcome: Welcome = site.ask("hello", &hello).await.expect(200).value();
    assert_eq!(welcome.keeps_seconds, 30 * 24 * 3600);

    let (hour, none) = (Duration::from_secs(3600), Duration::ZERO);
    let parts: Vec<Digest> = [b"old", b"mid", b"new"].map(|part| Digest::of(part)).to_vec();
    let ask = async |keeps| part::acknowledged(&site.pool, TENANT, &parts, keeps).await.unwrap();
    assert_eq!(ask(Some(hour)).await, Acknowledged::default());
    part::acknowledge(&site.pool, TENANT, &parts, hour).await.unwrap();
    site.execute(
        "update source_part set acknowledged_at = now() - case encode(digest, 'hex')
             when (select min(encode(digest, 'hex')) from source_part) then interval '3 hours' else interval '2 hours' end",
    )
    .await;
    let (oldest, others) = {
        let mut sorted = parts.clone();
        sorted.sort_unstable_by_key(|part| part.0);
        (sorted[0], sorted[1..].to_vec())
    };
    let all: HashSet<Digest> = parts.iter().copied().collect();
    assert_eq!(ask(Some(hour)).await, Acknowledged { doubtful: all.clone(), ..Acknowledged::default() });
    // Where the recovery site promises nothing, it says itself what it lacks.
    assert_eq!(ask(None).await, Acknowledged { there: all, ..Acknowledged::default() });

    // Acknowledged once more: believed again.
    part::acknowledge(&site.pool, TENANT, &others, none).await.unwrap();
    let believed = Acknowledged { there: others.iter().copied().collect(), doubtful: [oldest].into() };
    assert_eq!(ask(Some(hour)).await, believed);

    assert_eq!(part::forget_oldest(&site.pool, 3).await.unwrap(), 0);
    assert_eq!(part::forget_oldest(&site.pool, 2).await.unwrap(), 1);
    assert_eq!(ask(Some(hour)).await, Acknowledged { doubtful: HashSet::new(), ..believed });
    assert_eq!(part::forget_oldest(&site.pool, 0).await.unwrap(), 2);
}

/// A statement is planned once for each connection, and on a new installation while there is nothing to search.
#[tokio::test]
async fn contents_are_searched_by_key_whatever_was_there_when_the_search_was_planned() {
    const THERE: i32 = 5000;
    const WANTED: i32 = 1000;
    let (site, _) = Site::with_mailbox().await;
    let mut db = site.pool.begin().await.unwrap();
    let digest = |number: i32| Digest::of(&number.to_be_bytes());
    let wanted: Vec<Digest> = (0..WANTED).map(digest).collect();
    assert!(content::places(&mut *db, TENANT, &wanted).await.unwrap().is_empty());

    let digests: Vec<Vec<u8>> = (0..THERE).map(|number| digest(number).0.to_vec()).collect();
    sqlx::query("insert into content_pack (pack) values ('a') on conflict do nothing").execute(&mut *db).await.unwrap();
    let insert = "insert into content (tenant_id, digest, size, pack, pack_offset)
                  select $1, digest, 10, 'a', 0 from unnest($2::bytea[]) as d (digest)";
    sqlx::query(insert).bind(TENANT.0).bind(&digests).execute(&mut *db).await.unwrap();
    let read = "select (seq_tup_read + idx_tup_fetch)::bigint from pg_stat_xact_user_tables where relname = 'content'";
    let before: i64 = sqlx::query_scalar(read).fetch_one(&mut *db).await.unwrap();
    assert_eq!(content::places(&mut *db, TENANT, &wanted).await.unwrap().len(), WANTED as usize);
    let after: i64 = sqlx::query_scalar(read).fetch_one(&mut *db).await.unwrap();
    assert_eq!(after - before, i64::from(WANTED), "rows read");
}
