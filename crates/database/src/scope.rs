//! What of the mailboxes somebody may see: a tenant's, or of those a group's, or one.
//!
//! Keeps true: a question that takes a [`Scope`] never answers with anything outside it.

use understudy_protocol::TenantId;

/// Whose mailboxes, and which of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    pub tenant: TenantId,
    /// Only the mailboxes of this group.
    pub group: Option<String>,
    /// Only the mailbox with this address.
    pub mailbox: Option<String>,
}

impl Scope {
    /// Everything of the tenant, also what is not about a mailbox.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.group.is_none() && self.mailbox.is_none()
    }

    /// Whether a mailbox of the tenant is inside.
    #[must_use]
    pub fn covers(&self, address: &str, group: &str) -> bool {
        self.group.as_deref().is_none_or(|mine| mine == group)
            && self.mailbox.as_deref().is_none_or(|mine| mine.to_lowercase() == address.to_lowercase())
    }
}

impl From<TenantId> for Scope {
    fn from(tenant: TenantId) -> Self {
        Self { tenant, group: None, mailbox: None }
    }
}

impl From<&Scope> for Scope {
    fn from(scope: &Self) -> Self {
        scope.clone()
    }
}
