from pictures import figure_of as figure_of
