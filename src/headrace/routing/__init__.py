"""Where does it run? Models, their aliases, replicas, and which replica is next."""
