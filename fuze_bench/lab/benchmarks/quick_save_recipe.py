"""quick-save as most people write it first: a session and an `enqueue` for every request.

    gunicorn --workers 1 --threads 16 fuze_bench.lab.benchmarks.quick_save_recipe:app

Takes DATABASE (a file) and REDIS_URL from the environment.
"""

from __future__ import annotations

import os
import time
from typing import Any

import redis
from flask import Flask, jsonify, request
from rq import Queue
from sqlalchemy import create_engine, event
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

engine = create_engine(f"sqlite:///{os.environ['DATABASE']}", connect_args={"timeout": 30})


@event.listens_for(engine, "connect")
def _as_safe_as_ours(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


class Base(DeclarativeBase):
    """Of the tables."""


class Bookmark(Base):
    """A saved page."""

    __tablename__ = "bookmarks"
    id: Mapped[int] = mapped_column(primary_key=True)
    url: Mapped[str] = mapped_column(unique=True)
    title: Mapped[str | None]
    status: Mapped[str]
    created_at: Mapped[float]


Base.metadata.create_all(engine)
Session = sessionmaker(engine)
queue = Queue("default", connection=redis.Redis.from_url(os.environ["REDIS_URL"]))
app = Flask(__name__)


@app.post("/bookmarks")
def save() -> Any:
    """Save a page."""
    sent = request.get_json()
    with Session() as session:
        bookmark = Bookmark(
            url=sent["url"], title=sent.get("title"), status="pending", created_at=time.time()
        )
        session.add(bookmark)
        session.commit()
        number = bookmark.id
    queue.enqueue("recipe.process_bookmark", number, sent["url"], job_timeout=600)
    return jsonify(id=number, status="pending"), 201
