//! Who asks: basic authentication against bcrypt hashes.
//!
//! A check costs tens of milliseconds of a core by design. So it happens on a thread of its own, one at a time; a
//! password that was right is remembered as a keyed digest, so that a scraper pays once; and whoever guesses runs
//! into a limit of his own before he costs anything. A user who does not exist costs what one who does costs.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::header::{AUTHORIZATION, HeaderMap};
use parking_lot::Mutex;
use ring::hmac;
use ring::rand::SystemRandom;
use tokio::sync::Semaphore;

use crate::config::User;
use crate::sinks::token_bucket::Rate;

/// Wrong passwords that a peer may send at once, and how long it takes until it may send one more. Enough for a
/// person; ten guesses and then one every two seconds lead nowhere.
const FAILURES: Rate = Rate { interval_ns: 2_000_000_000, burst: 10 };
/// Peers whose failures are remembered, about 50 bytes each. Beyond it the one who failed longest ago is forgotten.
const PEERS_MAX: usize = 4096;
/// Checks at once: the cores belong to the models.
const CHECKS_MAX: usize = 1;
/// Salt and hash of a password that nobody knows.
const NOBODY: &str = "cVlDQY7ESgeLDtOCYeFpJuWYfJlOY4yzTjy9a2r5D3VP4l1Ym7LSS";

/// Somebody at the other end, as far as failures are counted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Peer {
    /// Somebody on the network; for IPv6 a whole /64, which is what one customer gets.
    Network(IpAddr),
    /// Somebody on a Unix socket.
    Local,
}

impl Peer {
    pub(super) fn of(address: IpAddr) -> Peer {
        Peer::Network(match address.to_canonical() {
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

/// Why somebody was not let in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No name and password, or wrong ones.
    Unauthorized {
        /// Whether there were any.
        is_wrong: bool,
    },
    /// Too many wrong ones, so that not even looked at.
    TooManyFailures {
        /// When to come again.
        retry_after_ns: u64,
    },
}

/// What is kept of those who failed, across changes of the configuration.
pub(super) struct Failures {
    full_at_ns: Mutex<HashMap<Peer, u64>>,
    checks: Arc<Semaphore>,
}

impl Default for Failures {
    fn default() -> Failures {
        Failures { full_at_ns: Mutex::default(), checks: Arc::new(Semaphore::new(CHECKS_MAX)) }
    }
}

impl Failures {
    /// Counts a failure before it is known to be one, so that many at once are counted too.
    fn charge(&self, peer: Peer, now_ns: u64) -> Result<(), u64> {
        let mut peers = self.full_at_ns.lock();
        if peers.len() >= PEERS_MAX && !peers.contains_key(&peer) {
            peers.retain(|_, full_at_ns| *full_at_ns > now_ns);
            if peers.len() >= PEERS_MAX
                && let Some(oldest) =
                    peers.iter().min_by_key(|(_, full_at_ns)| **full_at_ns).map(|(peer, _)| *peer)
            {
                peers.remove(&oldest);
            }
        }
        FAILURES.take(peers.entry(peer).or_insert(0), now_ns)
    }

    fn refund(&self, peer: Peer) {
        if let Some(full_at_ns) = self.full_at_ns.lock().get_mut(&peer) {
            FAILURES.put_back(full_at_ns);
        }
    }
}

/// The users of one configuration.
pub(super) struct Authentication {
    users: HashMap<String, Arc<Account>>,
    /// Stands in for the hash of a user who does not exist.
    decoy: String,
    key: hmac::Key,
}

struct Account {
    hash: String,
    /// The digest of the password that was right last.
    right: Mutex<Option<hmac::Tag>>,
}

impl Authentication {
    /// Authentication, unless there are no users.
    pub(super) fn new(users: &[User]) -> Option<Authentication> {
        let cost = users.iter().map(|user| user.cost).max()?;
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok()?;
        let account = |user: &User| Account { hash: user.hash.clone(), right: Mutex::new(None) };
        Some(Authentication {
            users: users.iter().map(|user| (user.name.clone(), Arc::new(account(user)))).collect(),
            decoy: format!("$2b${cost:02}${NOBODY}"),
            key,
        })
    }

    /// Lets somebody in or says why not.
    pub(super) async fn check(
        &self,
        headers: &HeaderMap,
        peer: Peer,
        failures: &Arc<Failures>,
        now_ns: u64,
    ) -> Result<(), Refusal> {
        let (name, password) = credentials(headers).ok_or(Refusal::Unauthorized { is_wrong: false })?;
        let account = self.users.get(&name);
        let digest = self.digest(&name, &password);
        if account.is_some_and(|account| account.is_remembered(&digest)) {
            return Ok(());
        }
        failures
            .charge(peer, now_ns)
            .map_err(|retry_after_ns| Refusal::TooManyFailures { retry_after_ns })?;
        // It is never closed.
        let permit = Arc::clone(&failures.checks).acquire_owned().await;
        // Whoever waited for a check of the same password needs none any more.
        if account.is_some_and(|account| account.is_remembered(&digest)) {
            failures.refund(peer);
            return Ok(());
        }
        let check = Check {
            hash: account.map_or_else(|| self.decoy.clone(), |account| account.hash.clone()),
            account: account.cloned(),
            digest,
            peer,
            failures: Arc::clone(failures),
        };
        // It runs to its end although the client may give up, so that a slow check is not begun again and again.
        let checked = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            check.run(&password)
        });
        if checked.await.unwrap_or(false) { Ok(()) } else { Err(Refusal::Unauthorized { is_wrong: true }) }
    }

    fn digest(&self, name: &str, password: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.key);
        // A name has no colon, so that no two pairs look the same.
        context.update(name.as_bytes());
        context.update(b":");
        context.update(password);
        context.sign()
    }
}

/// What a check needs that outlives its request.
struct Check {
    hash: String,
    account: Option<Arc<Account>>,
    digest: hmac::Tag,
    peer: Peer,
    failures: Arc<Failures>,
}

impl Check {
    fn run(self, password: &[u8]) -> bool {
        let is_right = bcrypt::verify(password, &self.hash).unwrap_or(false);
        let Some(account) = self.account.filter(|_| is_right) else {
            return false;
        };
        *account.right.lock() = Some(self.digest);
        self.failures.refund(self.peer);
        true
    }
}

impl Account {
    fn is_remembered(&self, digest: &hmac::Tag) -> bool {
        let right = *self.right.lock();
        // Digests under a key that nobody knows: comparing them tells nothing by the time it takes.
        right.is_some_and(|right| right.as_ref() == digest.as_ref())
    }
}

/// Name and password of a request. RFC 7617: a scheme in any case, and base64 of NAME:PASSWORD.
fn credentials(headers: &HeaderMap) -> Option<(String, Vec<u8>)> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = BASE64_STANDARD.decode(encoded.trim()).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let name = String::from_utf8(decoded[..colon].to_vec()).ok()?;
    Some((name, decoded[colon + 1..].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "right" at the lowest cost.
    fn users() -> Vec<User> {
        let hash = bcrypt::hash("right", 4).expect("a valid cost");
        vec![User { name: "alice".to_owned(), hash, cost: 4 }]
    }

    fn headers(text: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, text.parse().expect("a header"));
        headers
    }

    fn basic(pair: &str) -> HeaderMap {
        headers(&format!("Basic {}", BASE64_STANDARD.encode(pair)))
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
    }

    async fn poll_once(future: impl Future) -> bool {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx).is_ready())).await
    }

    const NOW_NS: u64 = 1_000_000_000_000;
    const WRONG: Refusal = Refusal::Unauthorized { is_wrong: true };

    #[test]
    fn only_the_right_pair_is_let_in() {
        let authentication = Authentication::new(&users()).expect("there are users");
        let failures = Arc::new(Failures::default());
        run(async {
            let check = |headers: HeaderMap| {
                let (authentication, failures) = (&authentication, &failures);
                async move { authentication.check(&headers, Peer::Local, failures, NOW_NS).await }
            };
            assert_eq!(check(basic("alice:right")).await, Ok(()));
            assert_eq!(check(basic("alice:right")).await, Ok(()), "remembered");
            assert_eq!(check(basic("alice:wrong")).await, Err(WRONG));
            assert_eq!(check(basic("alice:right")).await, Ok(()), "still remembered");
            assert_eq!(check(basic("bob:right")).await, Err(WRONG));
            assert_eq!(check(basic("alice:")).await, Err(WRONG));
            let nothing = Refusal::Unauthorized { is_wrong: false };
            for text in
                ["Bearer x", "Basic", "Basic !!!", &format!("Basic {}", BASE64_STANDARD.encode("alice"))]
            {
                assert_eq!(check(headers(text)).await.as_ref(), Err(&nothing), "{text}");
            }
            assert_eq!(check(HeaderMap::new()).await, Err(nothing));
        });
    }

    #[test]
    fn who_guesses_is_slowed_down_and_nobody_else() {
        let authentication = Authentication::new(&users()).expect("there are users");
        let failures = Arc::new(Failures::default());
        let guesser = Peer::of("2001:db8::1".parse().expect("an address"));
        let beside = Peer::of("2001:db8::2".parse().expect("an address"));
        assert_eq!(guesser, beside, "a /64 is one peer");
        assert_eq!(
            Peer::of("::ffff:192.0.2.1".parse().expect("an address")),
            Peer::of("192.0.2.1".parse().expect("an address"))
        );
        run(async {
            assert_eq!(authentication.check(&basic("alice:right"), guesser, &failures, NOW_NS).await, Ok(()));
            let mut refusals = Vec::new();
            for guess in 0..12 {
                let headers = basic(&format!("alice:{guess}"));
                refusals.push(authentication.check(&headers, guesser, &failures, NOW_NS).await);
            }
            assert_eq!(refusals.iter().filter(|refusal| **refusal == Err(WRONG)).count(), 10);
            assert!(matches!(refusals[11], Err(Refusal::TooManyFailures { .. })));
            let known = authentication.check(&basic("alice:right"), guesser, &failures, NOW_NS).await;
            assert_eq!(known, Ok(()), "a scraper at the same address goes on");
            let other = Peer::of("192.0.2.1".parse().expect("an address"));
            assert_eq!(authentication.check(&basic("alice:x"), other, &failures, NOW_NS).await, Err(WRONG));
        });
    }

    #[test]
    fn a_check_outlives_a_client_that_gives_up() {
        let authentication = Authentication::new(&users()).expect("there are users");
        let failures = Arc::new(Failures::default());
        run(async {
            let headers = basic("alice:right");
            let check = authentication.check(&headers, Peer::Local, &failures, NOW_NS);
            // Polled once, which begins the check, and dropped.
            let _ = poll_once(check).await;
            let _after_it = failures.checks.acquire().await.expect("never closed");
            assert!(authentication.users["alice"].right.lock().is_some());
        });
    }

    #[test]
    fn the_decoy_costs_what_a_user_costs() {
        let authentication = Authentication::new(&users()).expect("there are users");
        let decoy: bcrypt::HashParts =
            authentication.decoy.parse().expect("a hash, or it would cost nothing");
        assert_eq!(decoy.get_cost(), 4);
        assert!(Authentication::new(&[]).is_none());
    }

    #[test]
    fn failures_of_many_peers_are_bounded() {
        let failures = Failures::default();
        for number in 0..u32::try_from(PEERS_MAX).expect("small") + 100 {
            let peer = Peer::Network(IpAddr::V4(number.into()));
            assert_eq!(failures.charge(peer, 5), Ok(()));
        }
        assert_eq!(failures.full_at_ns.lock().len(), PEERS_MAX);
    }
}
