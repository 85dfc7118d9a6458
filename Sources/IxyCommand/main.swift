print("ixy")
