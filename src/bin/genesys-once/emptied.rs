//! `accept-emptied`: lets engines go on that refuse a Redis which has lost its
//! records. It writes to the markers of a namespace, and to no record.

use super::args::{AcceptEmptiedArgs, Place};
use super::exit::{Exit, Failure};
use super::{settings, terminal, text};

pub async fn accept(place: &Place, args: &AcceptEmptiedArgs) -> Result<Exit, Failure> {
    let namespace = settings::namespace(place, None)?;
    let Some(redis) = settings::open(place).await?.redis else {
        return Err(Failure::usage(
            "only a Redis is refused: a file has no marker",
        ));
    };
    terminal::report(&text::block(&[
        ("namespace", namespace.to_string()),
        (
            "will become",
            "accepted: engines that refuse take keys again, and WHAT WAS EXECUTED BEFORE THE \
             LOSS\nIS EXECUTED AGAIN when it is requested again"
                .to_owned(),
        ),
    ]));
    terminal::confirm(args.yes)?;
    let refused = redis.accept_emptied(&namespace).await?;
    terminal::print(&match refused {
        0 => "no shard was refused\n".to_owned(),
        _ => format!("{refused} refused shards are accepted: engines notice it within a minute\n"),
    })?;
    Ok(Exit::Done)
}
