"""The commands of `fuze-bench`, each importing what it needs when it runs."""
