REM sdxl_train_network.py --network_dim 4
set NAME=elena
accelerate launch ^
  "C:\sd-scripts\sdxl_train_network.py" --pretrained_model_name_or_path "D:\my models\sdxl.safetensors" ^
  --output_name %NAME% --network_module networks.lora --network_dim 32 --resolution "1024,1024" ^
  --optimizer_type Adafactor --optimizer_args "relative_step=False" "scale_parameter=False" > log.txt
