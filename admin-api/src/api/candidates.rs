//! Lists of mailboxes to protect, as people write them, made into rows or into what is wrong with each. No I/O.

use std::collections::HashMap;

use understudy_database::mailbox::NewMailbox;
use understudy_protocol::server::ServerRole;

use crate::{
    api::{
        mailboxes::label_problem,
        protect::{Protect, ProtectItem},
    },
    error::{ApiError, ProblemItem, Result},
    nearest::nearest,
};

/// The columns a CSV may have.
const COLUMNS: [&str; 6] = ["address", "primary", "standby", "standby_address", "policy", "group"];
/// The longest address (RFC 5321 §4.5.3.1, local part, at sign and domain).
const LONGEST_ADDRESS: usize = 320;

/// One row of a list, with what holds for the whole list filled in.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) row: ProtectItem,
    pub(crate) place: Place,
}

/// Where a row stands, to speak of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    pub(crate) index: usize,
    pub(crate) line: Option<u64>,
    /// Of the row in the body; a CSV has none.
    pub(crate) pointer: Option<String>,
    /// The rows of the list are objects, whose members a pointer can name.
    objects: bool,
}

/// A row that cannot be protected, and why.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    pub(crate) address: String,
    pub(crate) problem: ProblemItem,
}

impl Candidate {
    /// This row cannot be protected.
    pub(crate) fn refused(&self, field: &str, detail: String, nearest: Option<String>) -> Box<Refused> {
        let member = |pointer: &String| {
            if self.place.objects { format!("{pointer}/{field}") } else { pointer.clone() }
        };
        let problem = ProblemItem {
            pointer: self.place.pointer.as_ref().map(member),
            index: Some(self.place.index),
            line: self.place.line,
            detail,
            nearest,
        };
        Box::new(Refused { address: self.row.address.clone(), problem })
    }
}

/// The rows of a request, and those that could not even be read.
pub(crate) fn listed(request: &Protect) -> Result<(Vec<Candidate>, Vec<Refused>)> {
    let (rows, refused) = match (&request.address, &request.addresses, &request.items, &request.csv) {
        (Some(address), None, None, None) => (vec![from_address(address, "/address".to_owned(), 0)], Vec::new()),
        (None, Some(addresses), None, None) => (from_addresses(addresses), Vec::new()),
        (None, None, Some(items), None) => (from_items(items), Vec::new()),
        (None, None, None, Some(csv)) => from_csv(csv)?,
        _ => {
            let detail = "name the mailboxes in one of `address`, `addresses`, `items` or `csv`";
            return Err(ApiError::invalid(vec![ProblemItem::at("", detail)]));
        }
    };
    if rows.is_empty() && refused.is_empty() {
        return Err(ApiError::invalid(vec![ProblemItem::at("", "the list is empty")]));
    }
    if request.standby_address.is_some() && rows.len() > 1 {
        let detail = "one log-in on the standby cannot hold several mailboxes; give it with each";
        return Err(ApiError::invalid(vec![ProblemItem::at("/standby_address", detail)]));
    }
    let filled = rows.into_iter().map(|candidate| filled(candidate, request)).collect();
    Ok((filled, refused))
}

fn from_addresses(addresses: &[String]) -> Vec<Candidate> {
    let row = |(index, address): (usize, &String)| from_address(address, format!("/addresses/{index}"), index);
    addresses.iter().enumerate().map(row).collect()
}

fn from_address(address: &str, pointer: String, index: usize) -> Candidate {
    Candidate {
        row: ProtectItem { address: address.to_owned(), ..ProtectItem::default() },
        place: Place { index, pointer: Some(pointer), ..Place::default() },
    }
}

fn from_items(items: &[ProtectItem]) -> Vec<Candidate> {
    let row = |(index, item): (usize, &ProtectItem)| Candidate {
        row: item.clone(),
        place: Place { index, line: item.line, pointer: Some(format!("/items/{index}")), objects: true },
    };
    items.iter().enumerate().map(row).collect()
}

fn from_csv(text: &str) -> Result<(Vec<Candidate>, Vec<Refused>)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader =
        csv::ReaderBuilder::new().trim(csv::Trim::All).flexible(true).comment(Some(b'#')).from_reader(text.as_bytes());
    let columns = columns(&mut reader)?;
    let (mut candidates, mut refused) = (Vec::new(), Vec::new());
    for (index, record) in reader.records().enumerate() {
        let record = record.map_err(|error| unreadable(&error))?;
        let line = record.position().map(|position| line_of(text, position));
        let cell = |name: &str| {
            let at = columns.iter().position(|column| column == name)?;
            record.get(at).filter(|cell| !cell.is_empty()).map(str::to_owned)
        };
        let row = ProtectItem {
            address: cell("address").unwrap_or_default(),
            primary: cell("primary"),
            standby: cell("standby"),
            standby_address: cell("standby_address"),
            policy: cell("policy"),
            group: cell("group"),
            line,
        };
        let candidate = Candidate { row, place: Place { index, line, ..Place::default() } };
        if record.len() > columns.len() {
            let detail = format!("{} values under {} columns", record.len(), columns.len());
            refused.push(*candidate.refused("", detail, None));
        } else {
            candidates.push(candidate);
        }
    }
    Ok((candidates, refused))
}

/// The line a record really begins on: its position is where the reader stood, before empty lines and comments.
fn line_of(text: &str, position: &csv::Position) -> u64 {
    let mut line = position.line();
    let mut rest = usize::try_from(position.byte()).ok().and_then(|at| text.get(at..)).unwrap_or_default();
    while rest.starts_with(['\r', '\n', '#']) {
        let Some((_, after)) = rest.split_once('\n') else { break };
        line += 1;
        rest = after;
    }
    line
}

fn columns(reader: &mut csv::Reader<&[u8]>) -> Result<Vec<String>> {
    let header = reader.headers().map_err(|error| unreadable(&error))?.clone();
    let columns: Vec<String> = header.iter().map(str::to_lowercase).collect();
    let line = header.position().map_or(1, csv::Position::line);
    let unknown = columns.iter().filter(|column| !COLUMNS.contains(&column.as_str()));
    let mut errors: Vec<ProblemItem> = unknown
        .map(|column| ProblemItem {
            line: Some(line),
            detail: format!("there is no column `{column}`; the first line names some of: {}", COLUMNS.join(", ")),
            nearest: nearest(column, COLUMNS),
            ..ProblemItem::default()
        })
        .collect();
    if errors.is_empty() && !columns.iter().any(|column| column == "address") {
        let detail = "the first line names the columns, and one of them must be `address`".to_owned();
        errors.push(ProblemItem { line: Some(line), detail, ..ProblemItem::default() });
    }
    if errors.is_empty() { Ok(columns) } else { Err(ApiError::invalid(errors)) }
}

fn unreadable(error: &csv::Error) -> ApiError {
    let line = error.position().map(csv::Position::line);
    let detail = format!("this is no CSV: {error}");
    ApiError::invalid(vec![ProblemItem { line, detail, ..ProblemItem::default() }])
}

fn filled(mut candidate: Candidate, request: &Protect) -> Candidate {
    let row = &mut candidate.row;
    row.primary = row.primary.take().or_else(|| request.primary.clone());
    row.standby = row.standby.take().or_else(|| request.standby.clone());
    row.standby_address = row.standby_address.take().or_else(|| request.standby_address.clone());
    row.policy = row.policy.take().or_else(|| request.policy.clone());
    row.group = row.group.take().or_else(|| request.group.clone());
    candidate
}

/// The servers that rows may name.
pub(crate) struct Servers(HashMap<String, (i64, ServerRole)>);

impl Servers {
    pub(crate) fn new(names: Vec<(String, i64, ServerRole)>) -> Self {
        Self(names.into_iter().map(|(name, id, role)| (name, (id, role))).collect())
    }

    /// The row with numbers for names, or the first thing that is wrong with it.
    pub(crate) fn resolve(&self, candidate: &Candidate) -> Result<NewMailbox, Box<Refused>> {
        let row = &candidate.row;
        if let Some(detail) = address_problem(&row.address) {
            return Err(candidate.refused("address", detail, None));
        }
        let primary_server_id = self.server(candidate, "primary", row.primary.as_deref(), ServerRole::Primary)?;
        let standby_server_id = self.server(candidate, "standby", row.standby.as_deref(), ServerRole::Standby)?;
        let standby_address = row.standby_address.clone().unwrap_or_else(|| row.address.clone());
        if let Some(detail) = address_problem(&standby_address) {
            return Err(candidate.refused("standby_address", detail, None));
        }
        for (field, label) in [("policy", &row.policy), ("group", &row.group)] {
            if let Some(problem) = label.as_deref().and_then(|label| label_problem("", label)) {
                return Err(candidate.refused(field, problem.detail, None));
            }
        }
        Ok(NewMailbox {
            address: row.address.clone(),
            primary_server_id,
            standby_server_id,
            standby_address,
            policy: row.policy.clone().unwrap_or_else(|| "default".to_owned()),
            group: row.group.clone().unwrap_or_default(),
        })
    }

    fn server(
        &self,
        candidate: &Candidate,
        field: &str,
        name: Option<&str>,
        role: ServerRole,
    ) -> Result<i64, Box<Refused>> {
        let Some(name) = name else {
            return Err(candidate.refused(field, format!("no {field} is named"), None));
        };
        match self.0.get(name) {
            Some((id, known)) if *known == role => Ok(*id),
            Some(_) => {
                let detail = format!("the server `{name}` is no {field}");
                Err(candidate.refused(field, detail, None))
            }
            None => {
                let alike = self.0.iter().filter(|(_, (_, known))| *known == role).map(|(name, _)| name.as_str());
                let mut alike: Vec<&str> = alike.collect();
                alike.sort_unstable();
                let detail = format!("there is no server `{name}`");
                Err(candidate.refused(field, detail, nearest(name, alike)))
            }
        }
    }
}

/// Why no server could take this as a log-in.
fn address_problem(address: &str) -> Option<String> {
    if address.is_empty() {
        return Some("the address is missing".to_owned());
    }
    if address.len() > LONGEST_ADDRESS {
        return Some(format!("an address has at most {LONGEST_ADDRESS} bytes"));
    }
    let odd = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '*' | '%' | ':');
    // `*` and `%` are wild cards and separators of master log-ins, `:` separates addresses from passwords.
    address.chars().find(|c| odd(*c)).map(|c| format!("an address cannot contain {c:?}"))
}

/// Refuses the rows that say again what an earlier one said, or whose place on the standby an earlier one took.
pub(crate) fn refuse_repeated(rows: Vec<(Candidate, NewMailbox)>) -> (Vec<(Candidate, NewMailbox)>, Vec<Refused>) {
    let mut seen: HashMap<(i64, String), String> = HashMap::new();
    let mut taken: HashMap<(i64, String), String> = HashMap::new();
    let (mut kept, mut refused) = (Vec::new(), Vec::new());
    for (candidate, new) in rows {
        let place = candidate
            .place
            .line
            .map_or_else(|| format!("item {}", candidate.place.index), |line| format!("line {line}"));
        let source = (new.primary_server_id, new.address.clone());
        let target = (new.standby_server_id, new.standby_address.clone());
        if let Some(first) = seen.get(&source) {
            let detail = format!("`{}` is listed already, at {first}", new.address);
            refused.push(*candidate.refused("address", detail, None));
        } else if let Some(first) = taken.get(&target) {
            let detail = format!("the standby's `{}` is the place of another mailbox, at {first}", new.standby_address);
            refused.push(*candidate.refused("standby_address", detail, None));
        } else {
            seen.insert(source, place.clone());
            taken.insert(target, place);
            kept.push((candidate, new));
        }
    }
    (kept, refused)
}
