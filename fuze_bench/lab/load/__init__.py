"""What is offered: requests at their intended times by our sender or Locust, bookmarks and jobs."""
