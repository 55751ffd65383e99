"""The empty job in other Python queues, each as its documentation shows; they take Redis from REDIS_URL."""
