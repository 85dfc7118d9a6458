import Ixy
