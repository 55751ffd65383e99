"""The one table: bookmarks, with their claim, their stamps and what processing found."""

import sqlalchemy as sa

metadata = sa.MetaData()

_Id = sa.BigInteger().with_variant(sa.Integer, "sqlite")

bookmarks = sa.Table(
    "fuze_bookmarks",
    metadata,
    sa.Column("id", _Id, primary_key=True, autoincrement=True),
    sa.Column("user_id", sa.BigInteger, nullable=False),
    # The given URL, the key under which the page is known, and where it was found in the end.
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("canonical_url", sa.Text, nullable=False),
    sa.Column("url_hash", sa.LargeBinary(32), nullable=False),
    sa.Column("final_url", sa.Text),
    # What the user said wins over what the page says; both are kept.
    sa.Column("user_title", sa.Text),
    sa.Column("user_description", sa.Text),
    sa.Column("page_title", sa.Text),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("queue", sa.String(64), nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    # Failed tries of this generation that count, and when the next one is due (seconds since 1970).
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("retry_at", sa.Float(53)),
    # How many workers died over it, and of what the last one did.
    sa.Column("deaths", sa.Integer, nullable=False),
    sa.Column("death_note", sa.Text),
    sa.Column("times_saved", sa.Integer, nullable=False),
    # Which save has to see to the processing of this generation.
    sa.Column("save_token", sa.String(32), nullable=False),
    # The claim: who works on it, and until when that holds (seconds since 1970).
    sa.Column("claimed_by", sa.String(160)),
    sa.Column("lease_until", sa.Float(53)),
    # Wall-clock seconds for people, monotonic nanoseconds of the host for durations.
    sa.Column("created_at", sa.Float(53), nullable=False),
    sa.Column("queued_at", sa.Float(53), nullable=False),
    sa.Column("started_at", sa.Float(53)),
    sa.Column("done_at", sa.Float(53)),
    sa.Column("queued_ns", sa.BigInteger, nullable=False),
    sa.Column("started_ns", sa.BigInteger),
    sa.Column("done_ns", sa.BigInteger),
    sa.Column("reason", sa.String(32)),
    sa.Column("error", sa.Text),
    sa.Column("http_status", sa.Integer),
    # Of a bookmark whose text is kept: why processing it again found nothing better.
    sa.Column("note", sa.JSON(none_as_null=True)),
    sa.Column("language", sa.String(16)),
    sa.Column("published", sa.String(32)),
    sa.Column("summary", sa.Text),
    sa.Column("keywords", sa.JSON),
    sa.Column("word_count", sa.Integer),
    sa.Column("reading_time_s", sa.Integer),
    sa.Column("content_hash", sa.String(64)),
    sa.Column("embedding", sa.String(16)),
    sa.Column("embedding_model", sa.Text),
    sa.Column("durations_ms", sa.JSON),
    # Last, because SQLite walks over long values to reach what lies behind them.
    sa.Column("vector", sa.LargeBinary),
    sa.Column("text", sa.Text),
    sa.UniqueConstraint("user_id", "url_hash", name="fuze_bookmarks_page"),
    sa.Index("fuze_bookmarks_status", "status", "lease_until"),
    sqlite_autoincrement=True,
)

#: Everything but the two long columns, which only those fetch who need them.
SHORT_COLUMNS = [column for column in bookmarks.c if column.name not in ("vector", "text")]
