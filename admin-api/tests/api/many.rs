//! How fast fifty thousand mailboxes are answered for. Prints, and asserts no time: machines differ and are busy.
//!
//! `.ci/with-postgres cargo test -p understudy-admin-api --test api -- --ignored --nocapture fifty_thousand`

use std::time::{Duration, Instant};

use crate::service::{Service, server};

/// Times each question is asked; the first ones warm what is cold.
const ROUNDS: usize = 21;

/// Fifty thousand mailboxes of four tenants on sixteen pairs of servers: most mirrored, some of every other state, one in a hundred
/// behind, some with a journal, problems and another side.
const FILL: &str = "
    insert into tenant (name) select 'customer-' || n from generate_series(1, 3) n;
    insert into server (tenant_id, name, role, definition)
    select t.tenant_id, s.name, s.role, s.definition from server s cross join tenant t where t.tenant_id > 1;
    insert into mailbox (tenant_id, address, primary_server_id, standby_server_id, standby_address, group_name, phase, paused, captured_seq,
                         received_seq, applied_seq)
    select t.tenant_id, format('user%s@%s.example.org', to_char(n, 'FM00000'), t.name), p.server_id, s.server_id,
           format('user%s@%s.example.org', to_char(n, 'FM00000'), t.name),
           'group-' || n % 50, case when n % 97 = 0 then 'seeding' else 'mirroring' end, n % 101 = 0,
           100, 100, case when n % 100 = 0 then 90 else 100 end
    from (select *, row_number() over (order by tenant_id) - 1 as index from tenant) t
    cross join generate_series(1, 50000) n
    join server p on p.tenant_id = t.tenant_id and p.name = 'primary-' || (n % 4 + 1)
    join server s on s.tenant_id = t.tenant_id and s.name = 'standby-' || (n % 4 + 1)
    where (t.index = 0 and n <= 35000) or (t.index > 0 and n <= 5000);
    insert into transaction (mailbox_id, direction, seq, epoch, seed, body, changes, content_bytes, captured_at, applied_at)
    select mailbox_id, 'outbound', seq, 1, false, '', 1, 1000, now() - interval '1 minute',
           case when seq <= applied_seq then now() end
    from mailbox cross join generate_series(81, 100) seq where mailbox_id % 10 = 0 or applied_seq = 90;
    analyze;
";

#[tokio::test]
#[ignore = "measures; prints how long fifty thousand mailboxes take"]
async fn fifty_thousand_mailboxes() {
    let service = Service::start().await;
    for number in 1..=4 {
        for role in ["primary", "standby"] {
            service.post("/api/v1/servers", server(&format!("{role}-{number}"), role)).await.expect(201);
        }
    }
    service.execute(FILL).await;
    assert_eq!(service.number("select count(*) from mailbox").await, 50_000);
    let mut deep = String::new();
    for _ in 0..30 {
        let page = service.get(&format!("/api/v1/mailboxes?limit=1000{deep}")).await.expect(200);
        deep = format!("&after={}", page.body["next"].as_str().unwrap());
    }
    println!("{:44} {:>9} {:>9}", "35,000 of 50,000 mailboxes are this tenant's", "median", "slowest");
    for (what, path) in [
        ("first page of 100", "/api/v1/mailboxes".to_owned()),
        ("first page of 1,000", "/api/v1/mailboxes?limit=1000".to_owned()),
        ("page of 100 after 30,000", format!("/api/v1/mailboxes?limit=100{deep}")),
        ("state=seeding", "/api/v1/mailboxes?state=seeding".to_owned()),
        ("state=faulted, which none is", "/api/v1/mailboxes?state=faulted".to_owned()),
        ("one primary's", "/api/v1/mailboxes?server=primary-3".to_owned()),
        ("one group's", "/api/v1/mailboxes?group=group-7".to_owned()),
        ("part of an address, many", "/api/v1/mailboxes?q=user1".to_owned()),
        ("part of an address, one", "/api/v1/mailboxes?q=user34987".to_owned()),
        ("part of an address, none", "/api/v1/mailboxes?q=nobody-at-all".to_owned()),
        ("one mailbox", "/api/v1/mailboxes/user34987@default.example.org".to_owned()),
        ("status, the overview's", "/api/v1/status".to_owned()),
        ("servers", "/api/v1/servers".to_owned()),
        ("metrics", "/metrics".to_owned()),
    ] {
        let mut took: Vec<Duration> = Vec::new();
        for _ in 0..ROUNDS {
            let began = Instant::now();
            service.get(&path).await.expect(200);
            took.push(began.elapsed());
        }
        took.sort_unstable();
        println!("{what:44} {:6.1} ms {:6.1} ms", ms(took[ROUNDS / 2]), ms(took[ROUNDS - 1]));
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
