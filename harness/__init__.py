"""The tools of every measurement, each in one place. They know no other package of this project."""
