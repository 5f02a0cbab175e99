"""What runs inside of the processes under test, in the place of sitecustomize: moved clocks and hanging names."""
