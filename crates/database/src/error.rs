//! What can go wrong with the database.

/// Shorthand for this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// One question answered: is it worth trying again?
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the database did not answer")]
    Sql(#[from] sqlx::Error),
    #[error("the schema could not be brought up to date")]
    Migration(#[source] sqlx::migrate::MigrateError),
    #[error("another {0} gateway works on this database now")]
    Replaced(&'static str),
    #[error("stored {what} could not be read")]
    Unreadable { what: &'static str, source: Box<dyn std::error::Error + Send + Sync> },
}

impl Error {
    /// Stored bytes of `what` that cannot be read back.
    pub fn unreadable(what: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Unreadable { what, source: source.into() }
    }

    /// The name of the constraint that a write would have broken, if that is what went wrong.
    pub fn constraint(&self) -> Option<&str> {
        match self {
            Self::Sql(sqlx::Error::Database(error)) => error.constraint(),
            _ => None,
        }
    }
}
