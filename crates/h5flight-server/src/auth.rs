//! Who asks, and what they may do.
//!
//! Decided where data is read or changed, before any cache is looked at, for tickets too. Without tokens in the
//! catalogue everybody who reaches the server is an anonymous administrator: that is why such a server listens on
//! loopback only, unless it is told otherwise.

use std::sync::Arc;
use std::time::{Duration, Instant};

use h5flight_array::Reason;
use h5flight_catalog::Catalog;
use h5flight_catalog::error::ErrorKind;
use h5flight_catalog::model::{Principal, Role};
use tonic::metadata::MetadataMap;

use crate::error::{Error, Result};

/// How long a decision is trusted without asking: a revoked token works at most this much longer.
const FRESH: Duration = Duration::from_secs(5);
/// How long an unused decision is kept. While the catalogue is away, the last decision goes on to count (nobody can
/// revoke anything then either), so that a restart of it interrupts nobody's reads.
const KEPT: Duration = Duration::from_secs(300);
/// Decisions kept.
const KEPT_MAX: u64 = 10_000;
/// Longer tokens are refused unread.
const TOKEN_BYTES_MAX: usize = 512;

/// Checks tokens against the catalogue.
pub struct Auth {
    catalog: Arc<dyn Catalog>,
    insecure_anonymous: bool,
    /// By token.
    known: moka::sync::Cache<blake3::Hash, Decision<Principal>>,
    /// Whether callers without a token are admitted.
    open: moka::sync::Cache<(), Decision<bool>>,
}

#[derive(Clone)]
struct Decision<T> {
    is: T,
    at: Instant,
}

impl<T> Decision<T> {
    fn now(is: T) -> Self {
        Self { is, at: Instant::now() }
    }

    fn is_fresh(&self) -> bool {
        self.at.elapsed() < FRESH
    }
}

impl Auth {
    /// `insecure_anonymous` admits callers without a token whatever the catalogue says.
    pub fn new(catalog: Arc<dyn Catalog>, insecure_anonymous: bool) -> Self {
        Self {
            catalog,
            insecure_anonymous,
            known: moka::sync::Cache::builder().max_capacity(KEPT_MAX).time_to_live(KEPT).build(),
            open: moka::sync::Cache::builder().max_capacity(1).time_to_live(KEPT).build(),
        }
    }

    /// The principal of a call, by its `authorization` header.
    ///
    /// # Errors
    /// `unauthenticated`; `catalog_unavailable`.
    pub async fn principal(&self, metadata: &MetadataMap) -> Result<Principal> {
        let Some(header) = metadata.get("authorization") else { return self.anonymous().await };
        let token = header.to_str().ok().and_then(|header| {
            let (scheme, token) = header.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
        });
        match token {
            Some(token) => self.token(&token).await,
            None => Err(refused("the authorization header must be \"Bearer TOKEN\"")),
        }
    }

    /// The principal of a token.
    ///
    /// # Errors
    /// `unauthenticated`; `catalog_unavailable`.
    pub async fn token(&self, token: &str) -> Result<Principal> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(refused("the token is not one of this server's"));
        }
        let hash = blake3::hash(token.as_bytes());
        let kept = self.known.get(&hash);
        if let Some(decision) = kept.as_ref().filter(|decision| decision.is_fresh()) {
            return Ok(decision.is.clone());
        }
        match (self.catalog.authenticate(token).await, kept) {
            (Ok(Some(principal)), _) => {
                self.known.insert(hash, Decision::now(principal.clone()));
                Ok(principal)
            }
            (Ok(None), _) => {
                self.known.invalidate(&hash);
                Err(refused("the token is unknown, expired or revoked"))
            }
            (Err(error), Some(decision)) if error.kind == ErrorKind::Unavailable => {
                self.known.insert(hash, Decision::now(decision.is.clone()));
                Ok(decision.is)
            }
            (Err(error), _) => Err(error.into()),
        }
    }

    async fn anonymous(&self) -> Result<Principal> {
        if self.insecure_anonymous {
            return Ok(anonymous());
        }
        let kept = self.open.get(&());
        let open = match kept {
            Some(decision) if decision.is_fresh() => decision.is,
            kept => match (self.catalog.has_tokens().await, kept) {
                (Ok(has_tokens), _) => {
                    self.open.insert((), Decision::now(!has_tokens));
                    !has_tokens
                }
                (Err(error), Some(decision)) if error.kind == ErrorKind::Unavailable => {
                    self.open.insert((), Decision::now(decision.is));
                    decision.is
                }
                (Err(error), _) => return Err(error.into()),
            },
        };
        if open {
            return Ok(anonymous());
        }
        Err(refused("this server asks for a token; set H5FLIGHT_TOKEN or pass one as \"authorization: Bearer TOKEN\""))
    }
}

/// The principal of callers without a token, where they are admitted.
pub fn anonymous() -> Principal {
    Principal { id: 0, name: "anonymous".into(), role: Role::Admin, token_prefix: String::new() }
}

/// # Errors
/// `permission_denied` when the principal's role does not include `role`.
pub fn require(principal: &Principal, role: Role) -> Result<()> {
    if principal.role >= role {
        return Ok(());
    }
    let (has, needs) = (principal.role.as_str(), role.as_str());
    let message = format!("{} has the role {has}; this needs the role {needs}", principal.name);
    Err(Error::new(Reason::PermissionDenied, message))
}

fn refused(message: &str) -> Error {
    Error::new(Reason::Unauthenticated, message)
}
